// Keeps a page up to date. Without this file everything is there, too, as of when the page was loaded.
"use strict";

(() => {
  const main = document.querySelector("main");
  const link = document.querySelector("[data-link]");
  const address = main.dataset.live;
  const offset = Date.now() - Number(document.body.dataset.now) * 1000;
  let source = null;

  function element(html) {
    const template = document.createElement("template");
    template.innerHTML = html.trim();
    return template.content.firstElementChild;
  }

  // What stays the same is left alone: the focus, what is unfolded or scrolled, and a click that has begun.
  function become(old, fresh) {
    if (old.nodeName !== fresh.nodeName) {
      old.replaceWith(fresh);
      return fresh;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) {
        old.data = fresh.data;
      }
    } else {
      for (const { name, value } of fresh.attributes) {
        if (old.getAttribute(name) !== value) {
          old.setAttribute(name, value);
        }
      }
      for (const { name } of [...old.attributes]) {
        if (!fresh.hasAttribute(name) && name !== "open") {
          old.removeAttribute(name);
        }
      }
      const children = [...fresh.childNodes];
      children.forEach((child, index) => {
        const there = old.childNodes[index];
        if (there) {
          become(there, child);
        } else {
          old.append(child);
        }
      });
      while (old.childNodes.length > children.length) {
        old.lastChild.remove();
      }
    }
    return old;
  }

  function update(list, { order, parts }) {
    const known = new Map([...list.children].map((part) => [part.id, part]));
    let place = list.firstElementChild;
    for (const id of order) {
      let part = known.get(id);
      known.delete(id);
      if (!part) {
        part = element(parts[id]);
      } else if (id in parts) {
        part = become(part, element(parts[id]));
      }
      if (part === place) {
        place = place.nextElementSibling;
      } else {
        list.insertBefore(part, place);
      }
    }
    known.forEach((part) => part.remove());
  }

  function take(event) {
    for (const [name, content] of Object.entries(JSON.parse(event.data))) {
      const list = main.querySelector(`[data-parts="${CSS.escape(name)}"]`);
      if (list) {
        update(list, content);
      }
    }
    tellAges();
  }

  function ago(seconds) {
    if (seconds < 60) {
      return `${Math.max(0, Math.round(seconds))} s ago`;
    }
    if (seconds < 3600) {
      return `${Math.floor(seconds / 60)} min ago`;
    }
    return seconds < 172800 ? `${Math.floor(seconds / 3600)} h ago` : `${Math.floor(seconds / 86400)} days ago`;
  }

  function tellAges() {
    const now = Date.now() - offset;
    for (const time of document.querySelectorAll("time[data-age]")) {
      time.title ||= time.textContent;
      const text = ago((now - Date.parse(time.dateTime)) / 1000);
      if (time.textContent !== text) {
        time.textContent = text;
      }
    }
  }

  function say(text, tone) {
    link.hidden = false;
    if (link.textContent !== text) {
      link.textContent = text;
      link.className = `link ${tone}`;
    }
  }

  function connect() {
    source = new EventSource(address);
    source.addEventListener("open", () => say("Live", "ok"));
    source.addEventListener("view", take);
    source.addEventListener("error", () => {
      say("No connection: this is what was known last", "late");
      if (source.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(() => source ?? (document.hidden || connect()), 5000);
      }
    });
  }

  document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
  for (const picture of document.querySelectorAll(".graph")) {
    picture.scrollLeft = (picture.scrollWidth - picture.clientWidth) / 2;
  }
  tellAges();
  setInterval(tellAges, 1000);
  if (address) {
    document.querySelector(".as-of").hidden = true;
    connect();
    // A page that nobody sees costs nobody anything.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) {
        source?.close();
        source = null;
      } else if (!source) {
        connect();
      }
    });
  }
})();
