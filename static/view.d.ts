/** Keeps an element that has the parts of a stream's page equal to what a fresh load of the page shows. */

import type { Access, Stream } from "./stream.js";

export interface Options extends Access {
  /** The address of the page; that of the document if it is not given. */
  url?: string;
}

export interface ViewEvents {
  /** The page's fields changed. */
  page: CustomEvent<{ headline: string; lang: string; dir: string; timezone?: string }>;
  /** The number of updates that the reader has not seen changed. */
  count: CustomEvent<number>;
  /** Something was shown, or removed; `detail`: whether something that was shown has gone or changed, now or before. */
  change: CustomEvent<boolean>;
}

export class LiveView extends EventTarget {
  constructor(root: HTMLElement, options?: Options);
  readonly root: HTMLElement;
  readonly stream: Stream;
  /** Go live, unless the stream has ended or the root shows older entries only. */
  open(): void;
  /** Leave the root as it is, for good. */
  dispose(): void;
  /** Show a frame in the html format. */
  apply(frame: object): void;
  addEventListener<T extends keyof ViewEvents>(
    type: T,
    listener: (event: ViewEvents[T]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
}
