import "./style.css";
import drawing from "./drawing.svg?no-inline";
import { greeting } from "./greeting.js";

const show = (text) => (document.querySelector("#greeting").textContent = text);
show(greeting);
document.querySelector("#logo").src = drawing;

const button = document.querySelector("#count");
button.onclick = () => (button.textContent = Number(button.textContent) + 1);

import.meta.hot.accept("./greeting.js", (changed) => show(changed.greeting));
