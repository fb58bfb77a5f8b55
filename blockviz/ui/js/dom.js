// Put before every component script. Text reaches the page only as text nodes and attributes;
// nothing here or after it parses a string as HTML.
const h = (tag, attrs, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs || {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
};
const root = element.querySelector(".bv");
const setAttr = (node, name, value) => {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
};
const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
const safeLink = (address, text) =>
  /^https?:\/\//.test(address || "") ? h("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text) : text;
const bar = (share) => {
  const fillNode = h("i");
  fillNode.style.width = `${Math.round(100 * Math.max(0, Math.min(1, share)))}%`;
  return h("span", { class: "bv-bar", "aria-hidden": "true" }, fillNode);
};
const draw = (paint) => {
  const go = () => {
    if (props.value) paint(JSON.parse(JSON.stringify(props.value)));
  };
  watch("value", go);
  go();
};
