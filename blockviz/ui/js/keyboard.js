// What gradio's own fields leave out for those who use the keyboard or hear the page. Run once, as it
// is loaded.
() => {
  // The browser moves by arrows among radios of one name, and gradio gives each another, again and
  // again.
  const joined = (radio) => {
    const group = [...(radio.closest("fieldset") ?? radio.parentElement).querySelectorAll('input[type="radio"]')];
    for (const other of group) other.name = group[0].name;
    return group;
  };
  // The button that takes out a chosen entry goes by the entry's number among the choices.
  let isAsked = false;
  const named = () => {
    isAsked = false;
    for (const button of document.querySelectorAll(".token > .token-remove")) {
      const name = `Remove ${button.previousElementSibling?.textContent.trim()}`;
      if (button.title !== name) button.title = name;
    }
  };
  new MutationObserver(() => {
    if (!isAsked) requestAnimationFrame(named);
    isAsked = true;
  }).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["title"] });
  window.addEventListener("keydown", (event) => {
    if (event.target.matches?.('input[type="radio"]')) joined(event.target);
    // A dropdown opens its list a moment after any key: after Tab, that is once the focus has gone.
    if (event.key === "Tab" && event.target.matches?.('[role="combobox"]')) event.stopPropagation();
  }, true);
  // Tab stops at the chosen one.
  document.addEventListener("focusin", ({ target, relatedTarget }) => {
    if (!target.matches('input[type="radio"]:focus-visible')) return;
    const group = joined(target);
    if (!group.includes(relatedTarget)) group.find((radio) => radio.checked)?.focus();
  });
}
