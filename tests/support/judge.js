// What the judge does inside of a page. Read by judge.py.
({
  /** In every frame before anything else: each way to be heard is a canary. */
  listen() {
    const tell = window.tell;
    for (const name of ["alert", "confirm", "prompt", "print", "open", "pwned"]) {
      Object.defineProperty(window, name, { value: () => tell("ran", `${name}() in ${location.href}`) });
    }
    addEventListener("securitypolicyviolation", (event) => tell("blocked", `${event.effectiveDirective} ${event.blockedURI}`));
  },

  /** What stands in the document beside what the templates put there. */
  audit() {
    const words = (text) => new Set(text.split(/\s+/));
    const tags = words(`html head meta title link script body main header footer nav section div article p h1 h2 h3 h4 ol ul li bdi
      time a span strong b i em s u code br sub sup blockquote small figure figcaption img
      table thead tbody tr th td hr button`);
    const attributes = words(`lang dir charset name property content rel type title href src id role class cite datetime hidden
      aria-labelledby aria-describedby width height alt loading decoding data-stream data-cursor data-n data-limit data-build data-newer data-state
      data-timezone data-day data-rev data-order data-key data-words data-local data-local-ago data-local-time data-local-still tabindex scope start
      aria-label aria-pressed`);
    const ids = words(`json-ld live status header updated latest latest-title intro entries empty older topics local key key-title
      words since notice auto zone announcer readers side`);
    const ours = /^<script type="module" src="\.\.\/static\/[0-9a-f]{16}\/boot\.js"><\/script>$/;
    const found = [];
    const seen = new Set();
    const walker = document.createTreeWalker(document);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      if (node instanceof Text || node instanceof DocumentType) continue;
      if (!(node instanceof HTMLElement)) {
        found.push(`${node.nodeName} ${node.nodeValue}`);
        continue;
      }
      if (!tags.has(node.localName)) found.push(node.cloneNode(false).outerHTML);
      for (const { name, value } of node.attributes) {
        if (!attributes.has(name)) found.push(`${name}=${value}`);
        if (["href", "src", "cite"].includes(name) && !/^(https?|mailto):$/.test(new URL(value, location).protocol)) found.push(value);
        if (name === "id" && !ids.has(value) && !/^[eht]-[0-9A-Za-z][0-9A-Za-z_-]*$/.test(value)) found.push(`id ${value}`);
        if (name === "id" && seen.has(value)) found.push(`twice id ${value}`);
        if (name === "id") seen.add(value);
      }
    }
    for (const script of document.scripts) {
      const isData = script.type === "application/ld+json" && JSON.parse(script.textContent)["@type"];
      if (!isData && !ours.test(script.outerHTML)) found.push(script.outerHTML);
    }
    for (const meta of document.querySelectorAll("meta[http-equiv], body meta, body link, img:not(figure > img)")) found.push(meta.outerHTML);
    for (const link of document.querySelectorAll("link")) if (new URL(link.href).origin !== location.origin) found.push(link.outerHTML);
    return found;
  },

  /** The pictures of image blocks. */
  pictures: () => [...document.querySelectorAll("figure > img")].map((image) => image.src),

  /** What each entry shows of its plain text and its addresses, in order. */
  shown() {
    const fields = "h3, h4, .quote > footer, figure img, .credit, .post > p, .post > footer > a, .embed > a:first-child, .byline .name";
    const read = (/** @type {Element} */ element) => {
      const [text, href] = [element.textContent, element.getAttribute("href")];
      if (element.matches("img")) return [element.getAttribute("src"), element.getAttribute("alt")];
      if (element.matches(".post a")) return [href];
      return href === null ? [text] : [text, href];
    };
    const articles = [...document.querySelectorAll("article")];
    return Object.fromEntries(articles.map((article) => [article.id, [...article.querySelectorAll(fields)].flatMap(read)]));
  },
})
