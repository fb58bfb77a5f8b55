draw((v) => {
  const rows = v.rows.map((r) => {
    const button = h("button", { type: "button", class: r.is_cut ? "cut" : "", "aria-label": `${r.block}, ${r.is_cut ? "removed" : "kept"}: show its numbers` }, r.block);
    button.addEventListener("click", () => trigger("pick", { block: r.block }));
    return h("li", null, h("span", { class: "bv-n" }, String(r.rank)), button, bar(r.share), h("span", { class: "bv-raw" }, r.raw), h("span", { class: "bv-range" }, r.range));
  });
  root.replaceChildren(h("h2", null, "First to go"), h("p", { class: "bv-lead" }, v.lead), rows.length ? h("ol", { tabindex: "0", "aria-label": v.lead }, ...rows) : h("p", { class: "bv-empty" }, v.empty));
});
