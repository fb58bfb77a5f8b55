// What gradio's own fields leave out of the keyboard. Run once, as the page is loaded.
() => {
  // The browser moves by arrows among radios of one name, and gradio gives each another, again and
  // again.
  const joined = (radio) => {
    const group = [...(radio.closest("fieldset") ?? radio.parentElement).querySelectorAll('input[type="radio"]')];
    for (const other of group) other.name = group[0].name;
    return group;
  };
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
