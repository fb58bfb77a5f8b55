// A few stops, each beside the control it speaks of. What it does for people it does by pressing
// that control, and it looks at the page to see what was pressed, by itself or by hand.
const LOOK_MS = 200, PATIENCE = 25, SETTLING = 6;
const title = h("h2", { tabindex: "-1" }), count = h("p", { class: "bv-count" });
const text = h("p", { class: "bv-said", dir: "auto" }), after = h("p", { class: "bv-after", id: "tour-after", dir: "auto" });
const button = (words, press, look) => {
  const made = h("button", { type: "button", class: `bv-button ${look || ""}` }, words);
  made.addEventListener("click", press);
  return made;
};
const doIt = button("Do it for me", () => perform(), "bv-main"), back = button("Back", () => enter(at - 1));
const next = button("Next", () => (at + 1 < steps.length ? enter(at + 1) : leave(true))), stop = button("End", () => leave(false));
const putBack = button("Put back as it was", () => close({ removed: was.removed, metric: was.metric }), "bv-main"), keep = button("Keep it", () => close(null));
let steps = [], was = null, run = "", at = -1, lit = null, looks = 0, timer = 0, opener = null, hasCopied = false;
root.hidden = true;
for (const [name, value] of [["role", "region"], ["aria-label", "Tour"]]) root.setAttribute(name, value);
root.replaceChildren(h("div", { class: "bv-words" }, count, title, text, after), h("div", { class: "bv-steer" }, doIt, putBack, keep, back, next, stop));

const isThere = (node) => Boolean(node && node.getClientRects().length);
const isOpen = (step) => isThere(document.querySelector(step.mark));
// A tab that is an entry of the menu is shown by the button which opens the menu.
const shownTab = (name) => [tabCalled(name), document.querySelector("#tabs .overflow-menu > button")].find(isThere);
const found = (step, isDone) => {
  if (!isDone && step.act?.kind === "tab") return shownTab(step.tab);
  return (isDone ? step.later : step.target).map((s) => document.querySelector(s)).find(isThere);
};
const cuts = () => [...document.querySelectorAll('#grid .bv-block:not(.layer)[aria-checked="false"]')].map((b) => b.dataset.block).sort().join();
const metricNow = () => document.querySelector("#metric input")?.value;
const DONE = {
  whole: () => cuts() === "",
  cut: (act) => document.querySelector(`[data-block="${CSS.escape(act.block)}"]`)?.getAttribute("aria-checked") === "false",
  metric: (act) => metricNow() === act.title,
  tab: (act, step) => isOpen(step),
  copied: () => hasCopied,
};
const isDone = (step) => Boolean(step.act && DONE[step.act.done](step.act, step));

const light = (node) => {
  lit?.removeAttribute("data-toured");
  lit = node || null;
  lit?.setAttribute("data-toured", "");
};
// Between the scoreboard, which stays at the top, and the tour where that is at the bottom.
const bring = (node) => {
  const board = document.querySelector("#board"), behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";
  if (board.contains(node)) return;
  const aside = node.closest(".bv-scroll"), box = node.getBoundingClientRect();
  if (aside) {
    const frame = aside.getBoundingClientRect();
    if (box.left < frame.left || box.right > frame.right) aside.scrollBy({ left: box.left + box.width / 2 - frame.left - frame.width / 2, behavior });
  }
  const mine = root.getBoundingClientRect(), isBelow = getComputedStyle(root.closest("#tour")).position === "fixed";
  const top = Math.min(board.offsetHeight, innerHeight / 2) + 14, bottom = (isBelow ? mine.top : innerHeight) - 14;
  if (box.top >= top && box.bottom <= bottom) return;
  const room = Math.max(0, (bottom - top - box.height) / 2);
  scrollBy({ top: box.top - top - room, behavior });
};
const look = () => {
  const step = steps[at], done = isDone(step), node = found(step, done);
  hasCopied = hasCopied || (step.act?.done === "copied" && Boolean(node) && node.textContent !== "Copy link");
  if (node !== lit) {
    light(node);
    looks = 0;
  }
  // What stands above it may still be drawn, and move it, for about a second.
  if (lit && looks++ % 3 === 0 && looks < SETTLING) bring(lit);
  setText(after, done ? step.after : "");
  after.hidden = !done;
  doIt.hidden = !step.act;
  doIt.disabled = done || !node;
  return done;
};
const enter = (i) => {
  const step = steps[(at = i)];
  hasCopied = false;
  setText(count, `Tour, stop ${at + 1} of ${steps.length}`);
  setText(title, step.title);
  setText(text, step.text);
  for (const [node, isShown] of [[putBack, false], [keep, false], [next, true], [stop, true], [back, at > 0]]) node.hidden = !isShown;
  setText(next, at + 1 < steps.length ? "Next" : "Finish");
  root.hidden = false;
  light(null);
  if (step.act?.kind !== "tab" && !isOpen(step)) openTab(step.tab);
  look();
  title.focus({ preventScroll: true });
  clearInterval(timer);
  timer = setInterval(look, LOOK_MS);
};
const pause = () => new Promise((resolve) => setTimeout(resolve, LOOK_MS / 2));
const choose = async (label) => {
  const input = document.querySelector("#metric input");
  input.focus({ preventScroll: true });
  for (let i = 0; i < PATIENCE; i++) {
    const option = [...document.querySelectorAll('[role="option"]')].find((o) => o.closest("ul").id === input.getAttribute("aria-controls") && o.getAttribute("aria-label") === label);
    if (option) {
      option.dispatchEvent(new MouseEvent("mousedown", { bubbles: true, cancelable: true }));
      break;
    }
    await pause();
  }
  input.blur();
};
const perform = async () => {
  const step = steps[at], began = at;
  if (isDone(step)) return;
  if (step.act.kind === "tab") openTab(step.tab);
  if (step.act.kind === "press") found(step, false)?.click();
  if (step.act.kind === "choose") await choose(step.act.title);
  // The control has taken the focus, as it does under a hand; the way on is here.
  for (let i = 0; i < PATIENCE && at === began && !look(); i++) await pause();
  if (at === began) next.focus({ preventScroll: true });
};
const leave = (isWhole) => {
  clearInterval(timer);
  light(null);
  at = -1;
  const hasChanged = cuts() !== [...was.removed].sort().join() || (was.title && metricNow() !== was.title);
  if (!hasChanged && !isWhole) return close(null);
  setText(count, "Tour");
  setText(title, isWhole ? "That was the tour" : "The tour has ended");
  const left = hasChanged ? "Blocks or colours of the Map are not as they were when it began. " : "";
  setText(text, `${left}${isWhole ? "Learn explains every metric and correction; Search looks for sets to cut." : ""}`.trim());
  for (const node of [doIt, back, next, stop, after]) node.hidden = true;
  putBack.hidden = !hasChanged;
  keep.hidden = false;
  setText(keep, hasChanged ? "Keep it" : "Close");
  title.focus({ preventScroll: true });
};
const close = (before) => {
  root.hidden = true;
  if (before) trigger("restore", before);
  [opener, document.querySelector('#tabs [role="tab"][aria-selected="true"]'), shownTab("Map")].find(isThere)?.focus();
};
document.addEventListener("blockviz-tour", () => {
  opener = document.activeElement;
  trigger("begin", {});
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || root.hidden || event.defaultPrevented || event.target.closest("input, textarea, [role=listbox]")) return;
  if (at < 0) close(null);
  else leave(false);
});
next.setAttribute("aria-describedby", "tour-after");
draw((v) => {
  if (!v.run || v.run === run) return;
  ({ run, was } = v);
  steps = v.steps.filter((s) => !s.only_with || getComputedStyle(document.querySelector(s.only_with)).display !== "none");
  enter(0);
});
