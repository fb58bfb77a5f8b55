const text = h("span", { class: "bv-text", dir: "auto" }), fill = h("i");
const meter = h("span", { class: "bv-bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", hidden: true }, fill);
root.replaceChildren(h("span", { class: "bv-dot", "aria-hidden": "true" }), text, meter);
let settled = 0, step = "";
draw((v) => {
  // A job has ended since the last look: what waited for it can go on now.
  if (v.settled > settled) trigger("settled", {});
  settled = Math.max(settled, v.settled || 0);
  // A running job has found more than at the last look.
  if (v.step && v.step !== step && v.found === "search") trigger("searched", {});
  if (v.step && v.step !== step && v.found === "pairs") trigger("paired", {});
  if (v.step && v.step !== step && v.found === "repair") trigger("fitted", {});
  if (v.step && v.step !== step && v.found === "compare") trigger("compared", {});
  if (v.step && v.step !== step && v.found === "export") trigger("exported", {});
  step = v.step || step;
  // What is as it was is left alone: the dot goes on pulsing, and the page has nothing to lay out.
  root.hidden = !v.text;
  setAttr(root, "data-state", v.state);
  setText(text, v.text);
  meter.hidden = v.progress === null || v.progress === undefined;
  if (meter.hidden) return;
  const percent = String(Math.round(100 * v.progress));
  setAttr(meter, "aria-valuenow", percent);
  setAttr(meter, "aria-label", v.label);
  fill.style.width = `${percent}%`;
});
