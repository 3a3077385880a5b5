/** A card to tokenize. */
export interface Card {
  /** PAN, 12 to 19 digits, without spaces. */
  number: string;
  /** YYYY-MM */
  expiry: string;
}

/** A sealed card: the body of POST /v1/tokens. */
export interface SealedCard { key: string; enc: string; ct: string }

/** GET /v1/intake/key; api/openapi.yaml, IntakeKey. */
export interface IntakeKey { key: string; kem: string; kdf: string; aead: string; public_key: string; check_value: string; created_at: string; receipt: { index: number; entry: string; proof: string; verifier_key: string }[] }

/** api/openapi.yaml, Token. */
export interface Token {
  token: string; domain: string; format: string; status: "active" | "inactive" | "replaced"; replaced_by?: string;
  card: { brand: string; truncated: string; expiry: string }; created_at: string;
}

export interface RequestOptions {
  signal?: AbortSignal;
  idempotencyKey?: string;
}

export interface ClientConfig {
  /** https://host[:port] */
  url: string;
  /** With the scope tokens. A secret: not for pages. */
  apiKey: string;
  /** Token space; that of the key's merchant when empty. */
  domain?: string;
  /** Public key of the appliance's log (`finpay ledger key`), pinned: cards are sealed to keys alone that it proves. Node.js 20. */
  logKey?: string;
  /** Of one request, in milliseconds; 30000 when left out. */
  timeout?: number;
  fetch?: typeof globalThis.fetch;
}

export declare const DEFAULT_TIMEOUT: number;

/** An error of the contract (RFC 9457). */
export declare class Problem extends Error {
  /** HTTP status */
  readonly status: number;
  /** Stable; listed in api/openapi.yaml. "unexpected" for an answer that is no problem document. */
  readonly code: string;
  readonly detail: string;
  /** JSON pointer to the field at fault, or empty. */
  readonly pointer: string;
  /** In seconds; 0 for none. */
  readonly retryAfter: number;
}

export declare function keyIdOf(apiKey: string): string;
export declare function sealCard(card: Card, to: { intakeKey: IntakeKey; keyId: string; domain?: string; logKey?: string }): Promise<SealedCard>;

export declare class Client {
  readonly keyId: string;
  constructor(config: ClientConfig);
  intakeKey(options?: { refresh?: boolean; signal?: AbortSignal }): Promise<IntakeKey>;
  sealCard(card: Card, options?: { signal?: AbortSignal }): Promise<SealedCard>;
  tokenize(card: Card | SealedCard, options?: RequestOptions): Promise<Token>;
  token(token: string, options?: { signal?: AbortSignal }): Promise<Token>;
}
