// gr.Plot reports no clicks, so this listens on the figure itself and again after a remount.
const box = () => document.querySelector("#heat .js-plotly-plot");
const hook = () => {
  const figure = box();
  if (!figure || !figure.on || figure.dataset.hooked) return;
  figure.dataset.hooked = "1";
  figure.on("plotly_click", (event) => {
    const block = event.points && event.points[0] && event.points[0].customdata;
    if (typeof block === "string") trigger("pick", { block });
  });
};
const home = document.querySelector("#heat");
if (home) new MutationObserver(hook).observe(home, { childList: true, subtree: true });
hook();
