const tour = h("button", { type: "button", class: "bv-textlink" }, "Take the tour");
tour.addEventListener("click", () => document.dispatchEvent(new CustomEvent("blockviz-tour")));
draw((v) => {
  const mark = h("span", { class: "bv-mark", "aria-hidden": "true" }, h("i"), h("i", { class: "gone" }), h("i"));
  const chip = (label, name, rest) =>
    h("span", { class: "bv-chip", "aria-label": label, title: `${name} ${rest}` }, h("b", { dir: "auto" }, name), " ", h("span", { dir: "auto" }, rest));
  root.replaceChildren(
    h("h1", null, mark, "blockviz"),
    chip("model", v.model, v.model_facts),
    ...(v.data ? [chip("calibration text", v.data, v.data_facts)] : []),
    h("span", { class: "bv-headend" }, tour, h("span", { class: "bv-mode", title: v.mode_means }, v.mode)),
  );
});
