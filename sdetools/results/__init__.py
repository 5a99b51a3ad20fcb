"""What all results have in common: data with named axes, a table, a plot, a summary, and files that restore them."""
