// Addresses are relative to the page, so they are right by path and by host.
function add(list, text) {
  const item = document.createElement("li");
  item.textContent = text;
  document.querySelector(list).append(item);
}

globalThis.events = new EventSource("events");
events.onmessage = (event) => add("#events", event.data);

globalThis.socket = new WebSocket(new URL("ws", document.baseURI).href.replace(/^http/, "ws"));
socket.onmessage = (message) => add("#messages", message.data);
document.querySelector("#say").onclick = () => socket.send("hello");
