const button = h("button", { type: "button", class: "bv-button" }, "Copy link");
const shown = h("input", { type: "text", readonly: true, "aria-label": "Link to this view", hidden: true });
const address = () => `${props.value.base || location.origin + location.pathname}${props.value.query}`;
button.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(address());
    setText(button, "Link copied");
  } catch {
    shown.hidden = false;
    shown.value = address();
    shown.select();
    setText(button, "Copy the link below");
  }
  setTimeout(() => setText(button, "Copy link"), 2500);
});
root.replaceChildren(button, shown);
