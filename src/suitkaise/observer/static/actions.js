// Changes of the tree: asked for, sent with the page's own token, and told.

import { $, text } from "./dom.js";
import { store } from "./store.js";

let hiding = 0;

export function toast(words) {
  const box = $("toast");
  text(box, words);
  box.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { box.hidden = true; }, 5000);
}

const QUESTIONS = {
  restart: "It is stopped by its shutdown, and started again. The restart window does not count it.",
  stop: "It is stopped, and stays stopped until it is started.",
  suspend: "It does nothing after its current loop, until it is resumed. Messages wait.",
};

export function ask(action, path) {
  const box = $("ask"), [yes] = box.getElementsByClassName("strong");
  text(box.querySelector("p"), `${action[0].toUpperCase()}${action.slice(1)} ${path}? ${QUESTIONS[action]}`);
  text(yes, action[0].toUpperCase() + action.slice(1));
  box.returnValue = "";
  box.showModal();
  return new Promise((resolve) => box.addEventListener("close", () => resolve(box.returnValue === "yes"), { once: true }));
}

export async function change(action, path) {
  toast(`${path}: ${action} is requested`);
  try {
    const answer = await fetch("/api/change", {
      method: "POST", headers: { "Content-Type": "application/json", "X-CSRF-Token": store.csrf }, body: JSON.stringify({ action, path }),
    });
    const told = await answer.json();
    toast(told.text ?? told.error);
  } catch {
    toast(`${path}: ${action} could not be sent; the observer does not answer`);
  }
}
