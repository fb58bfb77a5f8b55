const button = h("button", { type: "button", class: "bv-button" });
button.addEventListener("click", () => saveFile(props.value.name, "text/plain;charset=utf-8", props.value.text));
root.replaceChildren(button);
draw((v) => {
  button.disabled = !v.text;
  button.textContent = v.label;
});
