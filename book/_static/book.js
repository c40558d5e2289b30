// What the theme's pages lack: a name for the arrows that open a chapter's pages in the sidebar.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".bd-links summary:not([aria-label])")) {
    const page = arrow.closest("li")?.querySelector("a")?.textContent.trim();
    arrow.setAttribute("aria-label", `Pages of ${page ?? "this part"}`);
  }
});
