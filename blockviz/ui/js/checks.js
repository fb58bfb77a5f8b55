// One row a check: what was looked at, what was found. The mark is a word too, never colour alone.
const MARKS = { passed: "✓", failed: "✕", waits: "–" };
const check = (row) =>
  h("li", { class: row.state },
    h("span", { class: "bv-mark", "aria-hidden": "true" }, MARKS[row.state]),
    h("span", { class: "bv-check" }, h("b", { dir: "auto" }, row.title), " ", h("span", { class: "bv-said" }, row.state), h("small", { dir: "auto" }, row.detail)));
draw((v) => {
  root.hidden = !v.title;
  const facts = v.facts.flatMap((f) => [h("dt", null, f.name), h("dd", { dir: "auto" }, f.value)]);
  root.replaceChildren(
    h("h2", null, v.title),
    h("p", { class: "bv-lead", dir: "auto" }, v.lead),
    h("ul", { class: "bv-checklist" }, ...v.rows.map(check)),
    facts.length ? h("dl", { class: "bv-facts" }, ...facts) : "",
    ...v.notes.map((note) => h("p", { class: "bv-sources", dir: "auto" }, note)),
    v.code ? h("pre", { class: "bv-code", tabindex: "0", "aria-label": "How to load it" }, h("code", null, v.code)) : "",
  );
});
