const column = (title, note, prompt, pieces, isPruned) => {
  const text = h("p", { dir: "auto", class: "bv-model-text" });
  if (prompt) text.append(h("span", { class: "bv-prompt" }, prompt), /^\s/.test(pieces[0]) ? "" : "\n");
  text.append(pieces[0]);
  if (pieces[1]) text.append(h("mark", null, pieces[1]));
  text.append(pieces[2]);
  return h("section", { class: isPruned ? "pruned" : "", "aria-label": title }, h("h3", null, title, " ", h("small", null, note)), text);
};
draw((v) => {
  root.setAttribute("aria-busy", String(v.is_busy));
  root.replaceChildren(
    column("original", "", v.prompt, v.original, false),
    column("pruned", v.plan, v.prompt, v.pruned, true),
    h("p", { class: "bv-note" }, v.note),
  );
});
