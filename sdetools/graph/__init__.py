"""Operations: what every formula becomes. This room knows nothing of losses, noises or dynamics."""
