// The channels of the regions of a Venn diagram, one row a region; a button opens its channel in Explore.
// data: [{name, class, channels}], the class being the one that a channel is opened with.

function element(tag, text, parent, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  parent.appendChild(made);
  return made;
}

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".chip-regions");
  root.replaceChildren();
  for (const [place, region] of data.entries()) {
    const group = element("div", "", root, "chip-region");
    group.dataset.region = place;
    group.setAttribute("role", "group");
    const count = region.channels.length;
    group.setAttribute("aria-label", `Channels of ${region.name}: ${count || "none"}`);
    const head = element("p", "", group);
    element("b", region.name, head);
    element("span", count ? ` \u00b7 ${count.toLocaleString("en")}` : " \u00b7 none", head);
    if (!count) continue;
    const list = element("div", "", group, "chip-region-channels");
    for (const channel of region.channels) {
      const button = element("button", String(channel), list);
      button.type = "button";
      button.setAttribute("aria-label", `Channel ${channel} in Explore`);
      button.onclick = () => setTriggerValue("channel", { class: region.class, channel });
    }
  }
}
