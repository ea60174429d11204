"use strict";
// What is told of a thing is shown where the pointer, a finger or the keyboard is. Tips are text: nothing in them is read as HTML.
(() => {
  const tip = document.getElementById("tip");
  let focused = null;  // what the keyboard has reached: its tip stays when the page scrolls to it
  const hide = () => { tip.hidden = true; };
  const show = (target, x, y) => {
    tip.textContent = target.getAttribute("data-tip");
    tip.hidden = false;
    const room = 12, width = document.documentElement.clientWidth, box = tip.getBoundingClientRect();
    tip.style.left = Math.max(room, Math.min(x + room, width - box.width - room)) + "px";
    tip.style.top = (y + box.height + 2 * room > window.innerHeight ? y - box.height - room : y + room) + "px";
  };
  const showFocused = () => {
    const box = focused.getBoundingClientRect();
    show(focused, box.left, box.bottom);
  };
  const told = (event) => event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  const follow = (event) => {
    const target = told(event);
    focused = null;
    if (target) show(target, event.clientX, event.clientY); else hide();
  };
  document.addEventListener("pointermove", follow);
  document.addEventListener("click", follow);
  document.addEventListener("focusin", (event) => {
    const target = told(event);
    focused = target && target.matches(":focus-visible") ? target : null;
    if (focused) showFocused();
  });
  document.addEventListener("focusout", () => { focused = null; hide(); });
  document.addEventListener("scroll", () => { if (focused) showFocused(); else hide(); }, { passive: true });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
