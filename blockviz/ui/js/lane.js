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
  root.hidden = !v.text;
  root.dataset.state = v.state;
  const parts = [h("span", { class: "bv-dot", "aria-hidden": "true" }), h("span", { class: "bv-text", dir: "auto" }, v.text)];
  if (v.progress !== null && v.progress !== undefined) {
    const percent = String(Math.round(100 * v.progress));
    const meter = bar(v.progress);
    meter.removeAttribute("aria-hidden");
    for (const [k, x] of [["role", "progressbar"], ["aria-valuemin", "0"], ["aria-valuemax", "100"], ["aria-valuenow", percent], ["aria-label", v.label]]) meter.setAttribute(k, x);
    parts.push(meter);
  }
  root.replaceChildren(...parts);
});
