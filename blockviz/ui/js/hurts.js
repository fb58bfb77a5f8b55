// The measured text, each word shaded by what it costs a variant beyond the original. Which variant,
// which window and which kinds of words are shown is chosen here and asks the server nothing.
let variant = 0, at = 0, kind = -1, spot = null;
const NATS = [0.25, 1, 2.5];
const level = (rise) => NATS.filter((n) => Math.abs(rise) >= 100 * n).length;
const chance = (nll) => {
  const p = 100 * Math.exp(-nll / 100);
  return `${p >= 10 ? p.toFixed(0) : p >= 1 ? p.toFixed(1) : p.toPrecision(1)} %`;
};
const word = (piece) => (piece.trim() ? piece.trim() : piece.includes("\n") ? "line break" : "space");
const button = (name, text, isOn, act) => {
  const found = h("button", { type: "button", class: "bv-button", "aria-pressed": String(isOn), dir: "auto" }, text);
  found.dataset.focus = name;
  found.addEventListener("click", act);
  return found;
};
const is = (v, i) => kind < 0 || v.marks[at][i].includes(kind);
const mean = (v, k) => {
  let n = 0, sum = 0;
  v.variants[variant].rises.forEach((row, w) => row.forEach((rise, i) => {
    if (k < 0 || v.marks[w][i + 1].includes(k)) { n += 1; sum += rise; }
  }));
  return n ? `${sum >= 0 ? "+" : "−"}${Math.abs(sum / n / 100).toFixed(2)}` : "none";
};
const said = (v, i) => {
  const before = v.before[at][i - 1], rise = v.variants[variant].rises[at][i - 1];
  const kinds = v.marks[at][i].map((k) => v.kinds[k].name).join(", ");
  return `“${word(v.windows[at][i])}”: foreseen with ${chance(before)} by the original, ${chance(before + rise)} by “${v.variants[variant].title}” (${rise >= 0 ? "+" : "−"}${Math.abs(rise / 100).toFixed(2)} nats)${kinds ? `; ${kinds}` : ""}`;
};
const text = (v) => {
  const rises = v.variants[variant].rises[at];
  const box = h("p", { class: "bv-losses", tabindex: "0", dir: "auto", role: "group", "aria-label": `Window ${at + 1}. The arrow keys go from word to word.` });
  box.dataset.focus = "text";
  v.windows[at].forEach((piece, i) => {
    const steps = i ? level(rises[i - 1]) : 0;
    const name = !i || !is(v, i) ? "off" : steps ? `${rises[i - 1] > 0 ? "worse" : "better"} l${steps}` : "";
    const node = h("span", { class: name || null }, piece);
    node.dataset.i = String(i);
    box.append(node);
  });
  return box;
};
const worst = (v) => {
  const found = [];
  v.variants[variant].rises.forEach((row, w) => row.forEach((rise, i) => {
    if (kind < 0 || v.marks[w][i + 1].includes(kind)) found.push([rise, w, i + 1]);
  }));
  found.sort((a, b) => b[0] - a[0]);
  const rows = found.slice(0, 25).map(([rise, w, i]) => {
    const around = v.windows[w].slice(Math.max(0, i - 6), i).join("");
    const cells = [word(v.windows[w][i]), `…${around}`, chance(v.before[w][i - 1]), chance(v.before[w][i - 1] + rise), `${rise >= 0 ? "+" : "−"}${Math.abs(rise / 100).toFixed(2)}`];
    return h("tr", null, h("th", { scope: "row", dir: "auto" }, cells[0]), ...cells.slice(1).map((t) => h("td", { dir: "auto" }, t)));
  });
  const head = ["word", "after", "original", "variant", "nats"].map((t) => h("th", { scope: "col" }, t));
  const table = h("table", null, h("thead", null, h("tr", null, ...head)), h("tbody", null, ...rows));
  const summary = h("summary", null, "The words that lost most, as a table");
  summary.dataset.focus = "worst";
  return h("details", { class: "bv-worst" }, summary, h("div", { class: "bv-numbers", tabindex: "0", role: "region", "aria-label": "The words that lost most" }, table));
};
const paint = (v) => {
  root.hidden = !v.windows.length;
  if (root.hidden) { root.replaceChildren(); return; }
  variant = Math.min(variant, v.variants.length - 1);
  at = Math.min(at, v.windows.length - 1);
  const active = root.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const isOpen = root.querySelector(".bv-worst")?.open;
  const again = () => paint(v);
  const row = (label, ...children) => h("div", { class: "bv-choices", role: "group", "aria-label": label }, h("span", { class: "bv-label" }, label), ...children);
  const variants = row("Model", ...v.variants.map((found, i) => button(`v${i}`, found.title, i === variant, () => { variant = i; again(); })));
  const kinds = row("Words", ...[{ name: "all", meaning: "every token" }, ...v.kinds].map((found, i) => {
    const node = button(`k${i}`, `${found.name} ${mean(v, i - 1)}`, i - 1 === kind, () => { kind = i - 1; again(); });
    node.title = found.meaning;
    return node;
  }));
  const step = (by) => () => { at = (at + by + v.windows.length) % v.windows.length; spot = null; again(); };
  const windows = v.windows.length > 1 ? row("Window", button("back", "Earlier", false, step(-1)), h("span", null, `${at + 1} of ${v.windows.length}`), button("next", "Later", false, step(1))) : "";
  for (const node of windows ? windows.querySelectorAll("button") : []) node.removeAttribute("aria-pressed");
  const box = text(v), line = h("p", { class: "bv-lead bv-spot", dir: "auto" }, "Point at a word, or go through them with the arrow keys.");
  const show = (i) => {
    if (!(i > 0) || !(i < v.windows[at].length)) return;
    box.querySelector(".spot")?.classList.remove("spot");
    box.children[i].classList.add("spot");
    spot = i;
    setText(line, said(v, i));
  };
  const pointed = (event) => { const i = Number(event.target.dataset?.i); if (i) show(i); };
  // Not `pointerover`: that also comes where text scrolls away under a pointer at rest.
  box.addEventListener("pointermove", pointed);
  box.addEventListener("click", pointed);
  box.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    let i = spot === null ? (by > 0 ? 0 : v.windows[at].length) : spot;
    do i += by; while (i > 0 && i < v.windows[at].length && !is(v, i));
    show(i);
    box.children[spot ?? 1].scrollIntoView({ block: "nearest" });
  });
  const table = worst(v);
  table.open = Boolean(isOpen);
  root.replaceChildren(h("h2", null, v.title), h("p", { class: "bv-lead" }, v.lead), variants, kinds, windows, box, line, table, h("p", { class: "bv-sources", dir: "auto" }, v.note));
  if (spot) show(spot);
  if (active) [...root.querySelectorAll("[data-focus]")].find((n) => n.dataset.focus === active)?.focus({ preventScroll: true });
};
draw(paint);
