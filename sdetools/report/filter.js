"use strict";
(() => {
  const form = document.querySelector(".tools"), sorted = document.getElementById("_sorted");
  const claims = [...document.querySelectorAll("details.claim")];
  const sections = [...document.querySelectorAll("main > section")].filter((one) => one !== sorted);
  const homes = new Map(claims.map((one) => [one, one.parentNode]));
  const orders = {
    name: (a, b) => (a.id < b.id ? -1 : 1),
    seconds: (a, b) => b.dataset.seconds - a.dataset.seconds,
    margin: (a, b) => b.dataset.margin - a.dataset.margin,
  };
  let order = "";

  function update() {
    const words = form.words.value.toLowerCase().split(/\s+/).filter(Boolean), verdict = form.verdict.value;
    for (const one of claims) {
      one.hidden = (verdict && one.dataset.verdict !== verdict) || !words.every((word) => one.dataset.words.includes(word));
    }
    if (form.order.value !== order) {
      order = form.order.value;
      // Without an order each claim returns to its section, in the order of the page.
      for (const one of order ? [...claims].sort(orders[order]) : claims) (order ? sorted : homes.get(one)).append(one);
      sorted.hidden = !order;
    }
    for (const one of sections) one.hidden = !one.querySelector("details.claim:not([hidden])");
    const count = claims.filter((one) => !one.hidden).length;
    form.querySelector("output").value = count === claims.length ? "" : count + " of " + claims.length;
  }

  function reset() {
    form.reset();
    update();
  }

  function follow() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (form && (target.hidden || sections.includes(target))) reset();
    if (target.matches("details")) target.open = true;
    target.scrollIntoView();
  }

  if (form) {
    form.hidden = false;
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    update(); // a browser may restore what was typed before a reload
  }
  addEventListener("hashchange", follow);
  for (const link of document.querySelectorAll(".counts a")) link.addEventListener("click", () => setTimeout(follow));
  follow();

  // In print everything is open.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });
})();
