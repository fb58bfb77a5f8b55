(visitor, browser, shade) => {
  // A tab that may keep nothing is a new one every time.
  const made = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
  const said = { ...browser };
  try {
    said.page = sessionStorage.getItem("blockviz-page") || made();
    sessionStorage.setItem("blockviz-page", said.page);
    const plan = JSON.parse(sessionStorage.getItem("blockviz-unanswered"));
    if (plan && plan.at === location.search) said.unanswered = plan.removed;
  } catch {}
  return [visitor, said, shade];
}
