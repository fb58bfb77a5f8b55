draw((v) => {
  const ramp = h("span", { class: "bv-ramp", "aria-hidden": "true" });
  ramp.style.background = v.ramp;
  root.replaceChildren(h("span", null, "removable"), ramp, h("span", null, "keep"), h("span", { class: "bv-cutkey" }, h("i", { "aria-hidden": "true" }), "cut"), h("span", { class: "bv-note" }, v.note));
});
