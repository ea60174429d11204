"use strict";
// What is told of a thing is shown where the pointer, a finger or the keyboard is. Tips are text: nothing in them is read as HTML.
(() => {
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const show = (target, x, y) => {
    tip.textContent = target.getAttribute("data-tip");
    tip.hidden = false;
    const room = 12, width = document.documentElement.clientWidth, box = tip.getBoundingClientRect();
    tip.style.left = Math.max(room, Math.min(x + room, width - box.width - room)) + "px";
    tip.style.top = (y + box.height + 2 * room > window.innerHeight ? y - box.height - room : y + room) + "px";
  };
  const told = (event) => event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  const follow = (event) => {
    const target = told(event);
    if (target) show(target, event.clientX, event.clientY); else hide();
  };
  document.addEventListener("pointermove", follow);
  document.addEventListener("click", follow);
  document.addEventListener("focusin", (event) => {
    const target = told(event);
    if (!target || !target.matches(":focus-visible")) return;
    const box = target.getBoundingClientRect();
    show(target, box.left, box.bottom);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { passive: true });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
