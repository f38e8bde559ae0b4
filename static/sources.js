// @ts-check
/**
 * A source brings the frames of a stream: a WebSocket, or Server-Sent Events read by `fetch`, which unlike an
 * EventSource can carry a token.
 */

const LINE_MOST = 16_777_216; // characters of an event that has not ended; a longer one ends the connection

/**
 * @typedef {{close(): void}} Source
 * @typedef {{token: string | undefined, access: Access, take: (frame: any) => void, closed: (code: number) => void}} Ways
 */

/** @param {URL} url @param {Ways} ways @returns {Source} */
export function openSocket(url, { token, take, closed }) {
  const socket = new WebSocket(url, token ? ["pushserver", `token.${token}`] : []);
  socket.onmessage = ({ data }) => take(JSON.parse(data));
  socket.onclose = ({ code }) => closed(code);
  return socket;
}

/** The address of the events of a stream. @param {URL} address of its WebSocket */
export function eventsUrl(address) {
  const url = new URL(address);
  url.protocol = url.protocol.replace("ws", "http");
  url.pathname = url.pathname.replace(/ws$/, "sse");
  return url;
}

/** @typedef {{withCredentials?: boolean, token?: string | (() => string | Promise<string>)}} Access to a stream */

/** The token of this moment; where there is none the server says so. @param {Access} access */
export async function tokenOf({ token }) {
  return typeof token === "function" ? token() : token;
}

/** A request as this reader. @param {Access} access @param {RequestInit} [more] @returns {Promise<RequestInit>} */
export async function request(access, more) {
  const token = await tokenOf(access).catch(() => "");
  /** @type {HeadersInit} */
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return { headers, credentials: access.withCredentials ? "include" : "same-origin", cache: "no-cache", ...more };
}

/** @param {URL} url of the WebSocket @param {Ways} ways @returns {Source} */
export function openEvents(url, { access, take, closed }) {
  const abort = new AbortController();
  const { signal } = abort;
  const end = () => signal.aborted || closed(1006);
  request(access, { cache: "no-store", signal })
    .then((init) => fetch(eventsUrl(url), init))
    .then((response) => (response.status === 200 && response.body ? read(response.body, take) : undefined))
    .then(end, end);
  return { close: () => abort.abort() };
}

/** @param {ReadableStream<Uint8Array>} body @param {(frame: any) => void} take */
async function read(body, take) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.startsWith("data: ")) take(JSON.parse(line.slice(6)));
    if (rest.length > LINE_MOST) return void reader.cancel();
  }
}
