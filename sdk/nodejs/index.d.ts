import { EventEmitter } from 'node:events';

export interface Configuration {
  version: number;
  data: Record<string, string>;
}

export type Event =
  | { type: 'open'; session: Session }
  | { type: 'close'; session: Session; graceMs: number }
  | { type: 'configuration'; configuration: Configuration };

/** A session. What is said of a session that is over does nothing. */
export class Session {
  private constructor();
  readonly id: string;
  readonly name: string;
  readonly tenant: string;
  readonly application: string;
  readonly applicationVersion: number;
  /** `spec.sessionData`, as it is. */
  readonly data: Buffer;
  /** The data as text. */
  readonly text: string;
  /** The application's configuration when the session was opened. */
  readonly configuration: Configuration;
  /** How long opening may take, in milliseconds. */
  readonly timeoutMs: number;
  readonly isActive: boolean;
  /** Says that clients can come. */
  ready(): void;
  /** Says that the session can't be opened, or broke, and why. */
  fail(reason: string): void;
  /** Says that a client is there. `false` when there are as many as there may be: turn it away. */
  clientJoined(id: string): boolean;
  /** Says that a client is gone. */
  clientLeft(id: string): void;
  /** Says that the program is about to close the session by itself. */
  closing(): void;
  /** Says that the session is over; resolves when the server knows, after 5 seconds at the latest. */
  closed(how?: { reason?: string; exitCode?: number }): Promise<void>;
}

/** This program, as an instance of Lyra. */
export class Lyra extends EventEmitter implements AsyncIterable<Event> {
  constructor(address: string);
  /** The current session, or the last one. */
  readonly session: Session | null;
  on(event: 'open', listener: (session: Session) => void): this;
  on(event: 'close', listener: (close: { session: Session; graceMs: number }) => void): this;
  on(event: 'configuration', listener: (configuration: Configuration) => void): this;
  on(event: 'gone', listener: () => void): this;
  [Symbol.asyncIterator](): AsyncIterator<Event>;
  /** Ends the connection. */
  end(): void;
}

/** Connects to the session server of this instance, in the background. */
export function connect(address?: string): Lyra;

/** The session as files, which follow each change. */
export class Directory {
  constructor(folder?: string);
  readonly path: string;
  session(): {
    id: string;
    name: string;
    tenant: string;
    application: string;
    application_version: number;
    configuration_version: number;
    data: Buffer;
  };
  configuration(): Record<string, string>;
  secret(name: string): Buffer;
}
