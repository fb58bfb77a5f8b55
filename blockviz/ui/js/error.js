draw((v) => {
  root.hidden = !v.text;
  if (!v.text) return root.replaceChildren();
  const close = h("button", { type: "button", class: "bv-textlink" }, "Dismiss");
  close.addEventListener("click", () => {
    root.hidden = true;
    root.replaceChildren();
  });
  root.replaceChildren(h("p", { role: "alert", dir: "auto" }, v.text), close);
});
