// Scroll to the top or to an element, once an occasion; see scrolling.py.
const PATIENCE = 10000, BELOW_THE_BAR = 72;  // ms; px
let last = null;

function scroll(main, to, until) {
  const place = to && main.querySelector(to);
  if (to && !place) {  // not drawn yet
    if (performance.now() < until) setTimeout(() => scroll(main, to, until), 100);
    return;
  }
  main.scrollTop = to ? main.scrollTop + place.getBoundingClientRect().top - main.getBoundingClientRect().top - BELOW_THE_BAR : 0;
}

export default function ({ data }) {
  const main = document.querySelector('[data-testid="stMain"]');
  if (!main || data.occasion === last) return;
  last = data.occasion;
  scroll(main, data.to, performance.now() + PATIENCE);
}
