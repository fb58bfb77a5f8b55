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
// name: for those who hear the link alone, where its text stands on others as well.
const safeLink = (address, text, name) =>
  /^https?:\/\//.test(address || "") ? h("a", { href: address, target: "_blank", rel: "noopener noreferrer", "aria-label": name }, text) : text;
const bar = (share) => {
  const fillNode = h("i");
  fillNode.style.width = `${Math.round(100 * Math.max(0, Math.min(1, share)))}%`;
  return h("span", { class: "bv-bar", "aria-hidden": "true" }, fillNode);
};
// On a narrow screen the last tabs are entries of a menu.
const tabCalled = (name) => {
  const all = [...document.querySelectorAll('#tabs [role="tab"]'), ...document.querySelectorAll("#tabs .overflow-dropdown button")];
  return all.find((tab) => tab.textContent.trim() === name);
};
const openTab = (name) => {
  const tab = tabCalled(name);
  tab?.click();
  return tab;
};
// Kept in this tab through a reload; a browser may forbid that.
const keepInTab = (name, value) => {
  try {
    sessionStorage.setItem(`blockviz-${name}`, JSON.stringify(value));
  } catch {}
};
const draw = (paint) => {
  const go = () => {
    if (props.value) paint(JSON.parse(JSON.stringify(props.value)));
  };
  watch("value", go);
  go();
};
const saveFile = (name, type, content) => {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
};
// plotly.js is 5 MB and the same for every file: it comes once a page, with the first that needs it.
const plotlyJs = async () => {
  window.blockvizPlotly = window.blockvizPlotly || server.send_plotly_js();
  try {
    const script = await window.blockvizPlotly;
    if (typeof script !== "string") throw new Error("no plotly.js");
    return script;
  } catch (error) {
    window.blockvizPlotly = null;
    throw error;
  }
};
