const ROWS = [["attn", "attn"], ["mlp", "MLP"], ["layer", "layer"]];
const hint = h("p", { class: "bv-hint", id: "bv-grid-keys", hidden: true }, "Arrows, Home and End move. Space or Enter switches a block off or on. u undoes, r resets, ? shows or hides this line.");
const table = h("div", { class: "bv-cells", role: "group", "aria-label": "Blocks of the model: switch off or on" });
const scroller = h("div", { class: "bv-scroll" }, table);
root.replaceChildren(scroller, hint);
let view = null, removed = [], sent = 0, seen = -1, here = { row: 0, layer: 0 }, buttons = [], pickTimer = 0;

const build = (n) => {
  table.style.setProperty("--layers", n);
  buttons = ROWS.map(([part]) =>
    Array.from({ length: n }, (_, layer) =>
      h("button", { type: "button", role: "switch", tabindex: "-1", class: `bv-block ${part}`, "data-block": `${layer}.${part}` }, part === "layer" ? String(layer) : null)));
  table.replaceChildren(...ROWS.flatMap(([, label], r) => [h("span", { class: "bv-rowname", "aria-hidden": "true" }, label), ...buttons[r]]));
  here = { row: 0, layer: Math.min(here.layer, n - 1) };
};
const ids = (part, layer) => (part === "layer" ? [`${layer}.attn`, `${layer}.mlp`] : [`${layer}.${part}`]);

const paint = () => {
  const gone = new Set(removed), tied = new Set(view.tied);
  ROWS.forEach(([part], r) => buttons[r].forEach((button, layer) => {
    const off = ids(part, layer).filter((id) => gone.has(id)).length;
    const isOff = off === ids(part, layer).length;
    setAttr(button, "aria-checked", String(!isOff));
    button.classList.toggle("cut", isOff);
    button.classList.toggle("half", part === "layer" && off === 1);
    setAttr(button, "tabindex", r === here.row && layer === here.layer ? "0" : "-1");
    if (part === "layer") {
      const words = isOff ? "removed" : off ? "half removed" : "kept";
      setAttr(button, "aria-label", `Layer ${layer}, both blocks, ${words}`);
      setAttr(button, "title", `Layer ${layer}: switch both blocks`);
      return;
    }
    const cell = view.cells[part][layer];
    button.style.setProperty("--tone", cell.colour || "var(--bv-none)");
    const facts = [cell.perplexity && `perplexity if cut ${cell.perplexity}`, cell.rank && `rank ${cell.rank} of ${view.of}`, tied.has(`${layer}.${part}`) && `not to be told from ${view.picked}`].filter(Boolean).join(", ");
    const words = [facts, isOff ? "removed" : "kept"].filter(Boolean).join(", ");
    setAttr(button, "aria-label", `Block ${layer}.${part}, ${words}`);
    setAttr(button, "title", `${layer}.${part}: ${words}`);
    button.classList.toggle("picked", view.picked === `${layer}.${part}`);
    button.classList.toggle("tied", tied.has(`${layer}.${part}`));
  }));
};
// What no answer has come to is kept in the tab: a page whose server was away is loaded again.
const awaitsAnswer = () => keepInTab("unanswered", { removed, at: location.search });
const toggle = (part, layer) => {
  const mine = ids(part, layer), gone = new Set(removed);
  const isOff = mine.every((id) => gone.has(id));
  removed = isOff ? removed.filter((id) => !mine.includes(id)) : [...removed, ...mine.filter((id) => !gone.has(id))];
  if (part !== "layer") view.picked = `${layer}.${part}`;
  sent += 1;
  clearTimeout(pickTimer);
  paint();
  awaitsAnswer();
  trigger("toggle", { removed: [...removed], block: `${layer}.${part}`, seq: sent });
};
// Reset shows at once, and is numbered as a toggle to the whole model would be: a block pressed before
// its answer is cut out of the whole model, and no drawing begun before it brings the old plan back.
const reset = () => {
  removed = [];
  sent += 1;
  clearTimeout(pickTimer);
  paint();
  awaitsAnswer();
  trigger("reset", { seq: sent });
};
const pick = () => {
  const part = ROWS[here.row][0];
  clearTimeout(pickTimer);
  if (part !== "layer") pickTimer = setTimeout(() => trigger("pick", { block: `${here.layer}.${part}` }), 140);
};
const moveTo = (row, layer) => {
  here = { row: Math.max(0, Math.min(2, row)), layer: Math.max(0, Math.min(view.layers - 1, layer)) };
  paint();
  buttons[here.row][here.layer].focus();
  pick();
};
table.addEventListener("click", (event) => {
  const button = event.target.closest(".bv-block");
  if (!button) return;
  const [layer, part] = button.dataset.block.split(".");
  here = { row: ROWS.findIndex(([name]) => name === part), layer: Number(layer) };
  button.focus();
  toggle(part, Number(layer));
});
table.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { row, layer } = here;
  const moves = { ArrowLeft: [row, layer - 1], ArrowRight: [row, layer + 1], ArrowUp: [row - 1, layer], ArrowDown: [row + 1, layer], Home: [row, 0], End: [row, view.layers - 1] };
  if (moves[event.key]) moveTo(...moves[event.key]);
  else if (event.key === "u") trigger("undo", {});
  else if (event.key === "r") reset();
  else if (event.key === "?") hint.hidden = !hint.hidden;
  else return;
  event.preventDefault();
});
document.addEventListener("click", (event) => event.target.closest("#reset") && view && reset());
draw((v) => {
  // A drawing begun before the last toggle was taken, or before the last change, shows an old plan.
  const isOld = v.seq < sent || v.changes < seen;
  if (!isOld) seen = v.changes;
  // A grid that is built anew goes on counting where the page's last one was.
  sent = Math.max(sent, v.seq);
  const isNew = !view || view.layers !== v.layers;
  view = v;
  if (!isOld) removed = v.removed;
  if (!isOld && sent) keepInTab("unanswered", null);
  if (isNew) build(v.layers);
  paint();
});
