// Per task and variant a list that opens: what was asked, what is right, what was answered instead.
const asked = (q) => {
  const isLost = q.state === "lost";
  return h("li", { class: q.state }, h("span", { class: `bv-tag ${isLost ? "warn" : "wait"}` }, q.state),
    h("p", { dir: "auto" }, q.text),
    h("small", { dir: "auto" }, `Right: ${q.right}`),
    h("small", { dir: "auto" }, `${isLost ? "Answered now" : "Answered before"}: ${q.other}`));
};
draw((v) => {
  root.hidden = !v.tasks.length;
  const open = new Set([...root.querySelectorAll("details[open]")].map((d) => d.dataset.name));
  const parts = v.tasks.flatMap((task) => [
    h("h3", { dir: "auto" }, task.name),
    ...task.variants.map((found) => {
      const head = [h("b", { dir: "auto" }, found.title), ` ${found.said}`];
      if (!found.questions.length) return h("p", { class: "bv-none" }, ...head);
      const more = found.n_more ? h("p", { class: "bv-lead" }, `and ${found.n_more} more`) : "";
      const node = h("details", null, h("summary", null, ...head), h("ul", { tabindex: "0", "aria-label": `${task.name}, ${found.title}` }, ...found.questions.map(asked)), more);
      node.dataset.name = `${task.name} ${found.title}`;
      node.open = open.has(node.dataset.name);
      return node;
    }),
  ]);
  root.replaceChildren(h("h2", null, v.title), h("p", { class: "bv-lead" }, v.lead), ...parts);
});
