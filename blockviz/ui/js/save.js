const button = h("button", { type: "button", class: "bv-button" });
button.addEventListener("click", () => {
  const address = URL.createObjectURL(new Blob([props.value.text], { type: "text/plain;charset=utf-8" }));
  const link = h("a", { href: address, download: props.value.name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
});
root.replaceChildren(button);
draw((v) => {
  button.disabled = !v.text;
  button.textContent = v.label;
});
