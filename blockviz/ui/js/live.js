root.setAttribute("role", "status");
root.setAttribute("aria-live", "polite");
draw((v) => setText(root, v.text));
