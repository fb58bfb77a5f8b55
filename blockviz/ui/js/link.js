// The address follows the view, one entry of the history for each plan. What others have put into the
// address, such as the theme, stays there.
const OURS = ["model", "remove", "metric", "tab", "prompt"], LONGEST_PROMPT = 300;
const button = h("button", { type: "button", class: "bv-button" }, "Copy link");
const shown = h("input", { type: "text", readonly: true, "aria-label": "Link to this view", hidden: true });
const promptBox = () => document.querySelector("#prompt textarea");
const openedTab = () => document.querySelector('#tabs [role="tab"][aria-selected="true"]')?.textContent.trim().toLowerCase();
const query = () => {
  const tab = openedTab(), prompt = promptBox()?.value || "";
  const added = [];
  if (tab && tab !== "map") added.push(`tab=${encodeURIComponent(tab)}`);
  if (prompt && prompt !== props.value.prompt && prompt.length <= LONGEST_PROMPT) added.push(`prompt=${encodeURIComponent(prompt)}`);
  return [props.value.query, ...added].join("&");
};
const address = () => `${props.value.base || location.origin + location.pathname}${query()}`;
const here = () => {
  const others = [...new URLSearchParams(location.search)].filter(([name]) => !OURS.includes(name));
  return [location.pathname + query(), ...others.map((pair) => pair.map(encodeURIComponent).join("="))].join("&");
};
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
let seen = -1, walk = 0, isWalking = false, hasDrawn = false;
const write = (isNew, removed) => history[isNew ? "pushState" : "replaceState"]({ ...(isNew ? {} : history.state), blockviz: removed }, "", here());
// Another tab or prompt is no entry of its own: Back and Forward walk through plans.
const follow = () => hasDrawn && !isWalking && history.state?.blockviz && write(false, history.state.blockviz);
addEventListener("popstate", (event) => {
  const removed = event.state?.blockviz;
  if (!Array.isArray(removed)) return;
  walk += 1;
  isWalking = true;
  trigger("walk", { removed, walk });
});
document.addEventListener("click", (event) => event.target.closest("#tabs") && setTimeout(follow));
document.addEventListener("keyup", (event) => event.target.closest?.('#tabs [role="tab"]') && setTimeout(follow));
document.addEventListener("change", (event) => event.target.closest?.("#prompt") && follow());
button.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(address());
    setText(button, "Link copied");
  } catch {
    shown.hidden = false;
    shown.value = address();
    shown.select();
    setText(button, "Copy the link below");
  }
  setTimeout(() => setText(button, "Copy link"), 2500);
});
root.replaceChildren(button, shown);
draw((v) => {
  if (v.walk === walk) isWalking = false;
  if (isWalking || v.changes < seen) return;
  seen = v.changes;
  const before = history.state?.blockviz;
  if (!hasDrawn) {
    // The page as it was sent: its address stays as short as it came.
    hasDrawn = true;
    if (!before && !new URLSearchParams(location.search).has("remove")) history.replaceState({ ...history.state, blockviz: v.removed }, "");
    return;
  }
  write(before !== undefined && !same(before, v.removed), v.removed);
});
// A link may open another tab than the first.
const wanted = new URLSearchParams(location.search).get("tab");
if (wanted) {
  const open = () => {
    const name = [...document.querySelectorAll('#tabs [role="tab"], #tabs .overflow-dropdown button')].map((tab) => tab.textContent.trim()).find((text) => text.toLowerCase() === wanted);
    if (name) openTab(name);
    return name;
  };
  if (!open()) requestAnimationFrame(open);
}
