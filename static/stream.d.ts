/** Follows a stream of a pushserver. docs/protocol.md describes every frame. */

export interface Access {
  /** A page of another origin sends its cookies too. */
  withCredentials?: boolean;
  /** Of a private stream; a function is called for each connection. */
  token?: string | (() => string | Promise<string>);
}

export interface Block {
  type: string;
  [field: string]: unknown;
}

export interface Entry {
  id: string;
  rev: number;
  url: string;
  headline?: string;
  blocks: Block[];
  bylines: { name: string; org?: string; role?: string }[];
  tags: string[];
  flags: { key?: boolean; pinned?: boolean; breaking?: boolean };
  published_at: string;
  sort_at: string;
  updated_at?: string;
  correction?: { class: string; note?: string; at: string };
}

export interface Page {
  rev: number;
  headline: string;
  kicker?: string;
  dek?: string;
  intro?: string;
  background: Block[];
  timezone: string;
  lang: string;
  dir: "ltr" | "rtl";
  state: "live" | "paused" | "ended";
  coverage_start?: string;
  coverage_end?: string;
  updated_at: string;
  previous: { label: string; url: string }[];
  next?: { label: string; url: string };
  topics: { label: string; url?: string }[];
  [field: string]: unknown;
}

interface NewestEvent {
  n: number;
  cursor: string;
}

interface Event extends NewestEvent {
  prev: string;
  at: string;
}

export interface Snapshot extends NewestEvent {
  type: "snapshot";
  page: Page;
  entries: Entry[];
}

export interface EntryPut extends Event {
  type: "entry.put";
  entry: Entry;
}

export interface EntryWithdraw extends Event {
  type: "entry.withdraw";
  id: string;
  rev: number;
  reason: string;
  note?: string;
}

export interface PagePut extends Event {
  type: "page.put";
  page: Page;
  /** What makes every entry look different; a `reset` and a snapshot follow. */
  changed?: ("lang" | "dir" | "timezone")[];
}

export interface StreamEnd extends Event {
  type: "stream.end";
  page: Page;
  next?: { label: string; url: string };
}

/** A snapshot follows. */
export interface Reset {
  type: "reset";
  reason: string;
  withdrawn: string[];
}

export type Frame = Snapshot | EntryPut | EntryWithdraw | PagePut | StreamEnd | Reset;

export interface Head {
  type: "head";
  head: NewestEvent;
  /** Of one worker. */
  readers: number;
  /** Of all workers, where the server shows them. */
  readers_now?: number;
  at: string;
  stale?: string;
}

export interface State {
  state: "connecting" | "behind" | "live" | "waiting" | "ended";
  /** Why it ended: the coverage is over, the token is missing or has expired, the server refuses, there is no such stream, or it was deleted. */
  reason: "" | "over" | "token" | "refused" | "unknown" | "deleted";
  /** Since when the server has had no contact with its store. */
  stale: string | null;
  /** The server answers, but something on the way holds its events back. */
  buffered: boolean;
  /** A new token, and `open`, would go on. */
  expired: boolean;
}

export interface StreamEvents {
  frame: CustomEvent<Frame>;
  head: CustomEvent<Head>;
  state: CustomEvent<State>;
  buffered: CustomEvent<null>;
}

export class Stream extends EventTarget {
  /** @param url of the WebSocket, without its cursor @param cursor of what is shown already, or "" */
  constructor(url: string | URL, cursor?: string, access?: Access);
  readonly url: string;
  /** Connect now, and again whenever the page is shown or the network is back. */
  open(): void;
  /** Let go of the connection until `open` is called. */
  close(): void;
  /** Let go of the connection and of the page's events for good. */
  dispose(): void;
  /** What is shown is as of this cursor; to be told while there is no connection. */
  loaded(cursor: string): void;
  addEventListener<T extends keyof StreamEvents>(
    type: T,
    listener: (event: StreamEvents[T]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<T extends keyof StreamEvents>(
    type: T,
    listener: (event: StreamEvents[T]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}
