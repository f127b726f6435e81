// One button a channel, role switch; see switches.py. One of them is a tab stop, arrow keys lead to the others.
export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".chip-switches");
  const count = data.open.length;
  root.setAttribute("aria-label", data.description);
  root.style.setProperty("--side", count <= 64 ? "30px" : count <= 200 ? "22px" : "14px");
  if (root.childElementCount !== count) {
    root.replaceChildren();
    for (let channel = 0; channel < count; channel++) {
      const button = document.createElement("button");
      button.type = "button";
      button.tabIndex = channel ? -1 : 0;
      button.dataset.channel = channel;
      button.setAttribute("role", "switch");
      root.appendChild(button);
    }
  }
  for (const [channel, button] of [...root.children].entries()) {
    const open = data.open[channel] === "1", words = `channel ${channel}, ${open ? "open" : "closed"}`;
    button.setAttribute("aria-checked", open);
    button.setAttribute("aria-label", words);
    button.title = words;
  }
  root.onclick = (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    button.setAttribute("aria-checked", button.getAttribute("aria-checked") !== "true");  // at once; the page follows
    setTriggerValue("turn", Number(button.dataset.channel));
  };
  root.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    const button = event.target.closest("button");
    if (!step || !button) return;
    event.preventDefault();
    const next = root.children[Number(button.dataset.channel) + step];
    if (!next) return;
    button.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
}
