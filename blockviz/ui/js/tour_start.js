// The tour itself hangs above all tabs, and listens.
const button = h("button", { type: "button", class: "bv-button bv-start" }, "Start the tour");
button.addEventListener("click", () => document.dispatchEvent(new CustomEvent("blockviz-tour")));
root.replaceChildren(button);
