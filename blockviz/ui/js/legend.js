draw((v) => {
  const ramp = h("span", { class: "bv-ramp", "aria-hidden": "true" });
  ramp.style.background = v.ramp;
  root.replaceChildren(h("span", null, "removable"), ramp, h("span", null, "keep"), h("span", { class: "bv-cutkey" }, h("i", { "aria-hidden": "true" }), "cut"), h("span", { class: "bv-tiedkey", title: "Blocks whose difference from the picked one is within the chance of the text" }, h("i", { "aria-hidden": "true" }), "not to be told from the picked block"), h("span", { class: "bv-note" }, v.note));
});
