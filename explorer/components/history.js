// One step of the browser's history a view; see history.py. Put in place once for a tab, which has one history.
const push = History.prototype.pushState, replace = History.prototype.replaceState;
const LATER = 100;  // ms; Streamlit tells the new view's parameters a moment before it writes the new view's name
let waiting = 0, leaving = false;

const name = () => location.pathname.split("/").pop() || "explore";  // the first view has no name in the address
const forget = () => { clearTimeout(waiting); leaving = false; };

function pushState(state, unused, to) {
  const next = new URL(to, location.href), going = next.searchParams.get("GOING");
  next.searchParams.delete("GOING");
  if (next.pathname.replace(/\/$/, "") !== location.pathname.replace(/\/$/, "")) {
    forget();
    push.call(history, state, unused, next.href);
    return;
  }
  clearTimeout(waiting);
  // From here to the new view's own name, what is written is of the new view, and this one's step stays as it was.
  leaving ||= going !== null && going !== name();
  if (!leaving) waiting = setTimeout(() => replace.call(history, state, unused, next.href), LATER);
}

addEventListener("popstate", forget);

export default function () {
  history.pushState = pushState;
}
