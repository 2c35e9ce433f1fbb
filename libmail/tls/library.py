"""libssl and libcrypto (OpenSSL 3.0 or later), bound once for libmail.tls.

Importing this module raises LibraryMissing where they are not installed.

The binding needs no compiler: cffi's ABI mode reads the declarations below, which are those of the
manual pages (section 3ssl), and finds the functions by name when they are first called. So those
that 3.0 does not have may be declared, and are called only where `at_least` says that they exist.

The libraries are found here, once, when this module is imported: before a process enters its jail,
and in master before it forks. That is safe: the library has no threads, and its random number
generators notice that they are in another process and take a new seed.

Callbacks (libmail/tls/callbacks.py) are made once as well, at import: one that is made after a fork
could share its memory with another process. They find their session by its `ex_data`.
"""

from __future__ import annotations

from typing import Final, cast

import cffi

from libmail.tls.errors import LibraryMissing
from libmail.tls.functions import Crypto, Handle, Ssl

__all__ = [
    "CRYPTO",
    "FFI",
    "PARSED_TYPES",
    "SSL",
    "Handle",
    "at_least",
    "clear_problems",
    "octets",
    "problems",
    "text",
]

_SSL_NAME: Final = "libssl.so.3"
_CRYPTO_NAME: Final = "libcrypto.so.3"

_TYPES: Final = """
    typedef struct ssl_st SSL;
    typedef struct ssl_ctx_st SSL_CTX;
    typedef struct ssl_method_st SSL_METHOD;
    typedef struct ssl_session_st SSL_SESSION;
    typedef struct ssl_cipher_st SSL_CIPHER;
    typedef struct bio_st BIO;
    typedef struct bio_method_st BIO_METHOD;
    typedef struct x509_st X509;
    typedef struct X509_name_st X509_NAME;
    typedef struct X509_name_entry_st X509_NAME_ENTRY;
    typedef struct x509_store_st X509_STORE;
    typedef struct x509_store_ctx_st X509_STORE_CTX;
    typedef struct x509_pubkey_st X509_PUBKEY;
    typedef struct evp_pkey_st EVP_PKEY;
    typedef struct evp_md_st EVP_MD;
    typedef struct evp_cipher_st EVP_CIPHER;
    typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
    typedef struct evp_mac_ctx_st EVP_MAC_CTX;
    typedef struct asn1_string_st ASN1_STRING;
    typedef struct asn1_string_st ASN1_TIME;
    typedef struct x509_lookup_st X509_LOOKUP;
    typedef struct x509_lookup_method_st X509_LOOKUP_METHOD;
    typedef struct x509_object_st X509_OBJECT;
    typedef struct stack_st OPENSSL_STACK;
    typedef struct { const char *key; unsigned int data_type; void *data; size_t data_size;
                     size_t return_size; } OSSL_PARAM;
    typedef struct { int type; void *value; } GENERAL_NAME;
    typedef int (*subject_cb)(X509_LOOKUP *, int, const X509_NAME *, X509_OBJECT *);
    typedef int (*verify_cb)(int, X509_STORE_CTX *);
    typedef int (*hello_cb)(SSL *, int *, void *);
    typedef int (*new_session_cb)(SSL *, SSL_SESSION *);
    typedef SSL_SESSION *(*get_session_cb)(SSL *, const unsigned char *, int, int *);
    typedef int (*ticket_cb)(SSL *, unsigned char *, unsigned char *, EVP_CIPHER_CTX *,
                             EVP_MAC_CTX *, int);
    typedef int (*servername_cb)(SSL *, int *, void *);
    typedef void (*info_cb)(const SSL *, int, int);
    typedef void (*message_cb)(int, int, int, const void *, size_t, SSL *, void *);
"""

_CRYPTO: Final = """
    unsigned long OpenSSL_version_num(void);
    void CRYPTO_free(void *ptr, const char *file, int line);
    int CONF_modules_load_file(const char *filename, const char *appname, unsigned long flags);
    void CONF_modules_finish(void);

    void ERR_clear_error(void);
    unsigned long ERR_get_error_all(const char **file, int *line, const char **func,
                                    const char **data, int *flags);
    void ERR_error_string_n(unsigned long e, char *buf, size_t len);

    int RAND_bytes(unsigned char *buf, int num);

    const BIO_METHOD *BIO_s_mem(void);
    BIO *BIO_new(const BIO_METHOD *type);
    BIO *BIO_new_mem_buf(const void *buf, int len);
    int BIO_free(BIO *bio);
    int BIO_read(BIO *bio, void *data, int len);
    int BIO_write(BIO *bio, const void *data, int len);
    long BIO_ctrl(BIO *bio, int cmd, long larg, void *parg);
    size_t BIO_ctrl_pending(BIO *bio);
    int PEM_read_bio(BIO *bio, char **name, char **header, unsigned char **data, long *len);

    X509 *d2i_X509(X509 **target, const unsigned char **data, long len);
    X509 *d2i_X509_AUX(X509 **target, const unsigned char **data, long len);
    int i2d_X509(const X509 *x509, unsigned char **target);
    int X509_up_ref(X509 *x509);
    void X509_free(X509 *x509);
    X509_NAME *X509_get_subject_name(const X509 *x509);
    X509_NAME *X509_get_issuer_name(const X509 *x509);
    X509_NAME *X509_NAME_dup(const X509_NAME *name);
    char *X509_NAME_oneline(const X509_NAME *name, char *buf, int size);
    int X509_NAME_get_index_by_NID(const X509_NAME *name, int nid, int lastpos);
    X509_NAME_ENTRY *X509_NAME_get_entry(const X509_NAME *name, int loc);
    ASN1_STRING *X509_NAME_ENTRY_get_data(const X509_NAME_ENTRY *entry);
    int ASN1_STRING_to_UTF8(unsigned char **out, const ASN1_STRING *in);
    const unsigned char *ASN1_STRING_get0_data(const ASN1_STRING *in);
    int ASN1_STRING_length(const ASN1_STRING *in);
    void *X509_get_ext_d2i(const X509 *x509, int nid, int *crit, int *idx);
    void GENERAL_NAMES_free(void *names);
    const ASN1_TIME *X509_get0_notBefore(const X509 *x509);
    int X509_get_signature_info(X509 *x509, int *mdnid, int *pknid, int *secbits, uint32_t *flags);
    const ASN1_TIME *X509_get0_notAfter(const X509 *x509);
    int ASN1_TIME_diff(int *days, int *seconds, const ASN1_TIME *from, const ASN1_TIME *to);
    X509_PUBKEY *X509_get_X509_PUBKEY(const X509 *x509);
    int i2d_X509_PUBKEY(const X509_PUBKEY *key, unsigned char **target);
    EVP_PKEY *X509_get0_pubkey(const X509 *x509);
    int X509_check_private_key(const X509 *x509, const EVP_PKEY *key);
    const char *X509_verify_cert_error_string(long code);

    EVP_PKEY *d2i_AutoPrivateKey(EVP_PKEY **target, const unsigned char **data, long len);
    EVP_PKEY *d2i_PUBKEY(EVP_PKEY **target, const unsigned char **data, long len);
    EVP_PKEY *d2i_KeyParams(int type, EVP_PKEY **target, const unsigned char **data, long len);
    int i2d_PUBKEY(const EVP_PKEY *key, unsigned char **target);
    void EVP_PKEY_free(EVP_PKEY *key);
    int EVP_PKEY_up_ref(EVP_PKEY *key);
    int EVP_PKEY_get_bits(const EVP_PKEY *key);
    const char *EVP_PKEY_get0_type_name(const EVP_PKEY *key);
    int EVP_PKEY_get_group_name(const EVP_PKEY *key, char *name, size_t size, size_t *len);

    const EVP_MD *EVP_get_digestbyname(const char *name);
    int EVP_Digest(const void *data, size_t count, unsigned char *md, unsigned int *size,
                   const EVP_MD *type, void *engine);
    EVP_CIPHER *EVP_CIPHER_fetch(void *context, const char *name, const char *properties);
    void EVP_CIPHER_free(EVP_CIPHER *cipher);
    int EVP_CIPHER_get_key_length(const EVP_CIPHER *cipher);
    int EVP_CIPHER_get_iv_length(const EVP_CIPHER *cipher);
    int EVP_CIPHER_get_block_size(const EVP_CIPHER *cipher);
    int EVP_CipherInit_ex(EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher, void *engine,
                          const unsigned char *key, const unsigned char *iv, int enc);
    int EVP_MAC_CTX_set_params(EVP_MAC_CTX *ctx, const OSSL_PARAM params[]);
    const char *OBJ_nid2sn(int nid);

    int OPENSSL_sk_num(const OPENSSL_STACK *stack);
    void *OPENSSL_sk_value(const OPENSSL_STACK *stack, int index);
    OPENSSL_STACK *OPENSSL_sk_new_null(void);
    int OPENSSL_sk_push(OPENSSL_STACK *stack, const void *item);
    void OPENSSL_sk_free(OPENSSL_STACK *stack);

    X509_STORE *X509_STORE_new(void);
    void X509_STORE_free(X509_STORE *store);
    int X509_STORE_add_cert(X509_STORE *store, X509 *x509);
    X509_LOOKUP *X509_STORE_add_lookup(X509_STORE *store, X509_LOOKUP_METHOD *method);
    X509_LOOKUP_METHOD *X509_LOOKUP_meth_new(const char *name);
    int X509_LOOKUP_meth_set_get_by_subject(X509_LOOKUP_METHOD *method, subject_cb callback);
    int X509_LOOKUP_set_method_data(X509_LOOKUP *lookup, void *data);
    void *X509_LOOKUP_get_method_data(const X509_LOOKUP *lookup);
    int X509_OBJECT_set1_X509(X509_OBJECT *object, X509 *x509);
    unsigned long X509_NAME_hash_ex(const X509_NAME *name, void *libctx, const char *propq,
                                    int *ok);
    int X509_NAME_cmp(const X509_NAME *a, const X509_NAME *b);
    int X509_check_purpose(X509 *x509, int purpose, int ca);
    const char *X509_get_default_cert_file(void);
    const char *X509_get_default_cert_dir(void);
    int X509_STORE_CTX_get_error(const X509_STORE_CTX *ctx);
    void X509_STORE_CTX_set_error(X509_STORE_CTX *ctx, int error);
    int X509_STORE_CTX_get_error_depth(const X509_STORE_CTX *ctx);
    X509 *X509_STORE_CTX_get_current_cert(const X509_STORE_CTX *ctx);
    void *X509_STORE_CTX_get_ex_data(const X509_STORE_CTX *ctx, int idx);
"""

_SSL: Final = """
    const SSL_METHOD *TLS_server_method(void);
    const SSL_METHOD *TLS_client_method(void);
    SSL_CTX *SSL_CTX_new(const SSL_METHOD *method);
    void SSL_CTX_free(SSL_CTX *ctx);
    long SSL_CTX_ctrl(SSL_CTX *ctx, int cmd, long larg, void *parg);
    long SSL_CTX_callback_ctrl(SSL_CTX *ctx, int cmd, void (*fp)(void));
    uint64_t SSL_CTX_set_options(SSL_CTX *ctx, uint64_t options);
    uint64_t SSL_CTX_clear_options(SSL_CTX *ctx, uint64_t options);
    void SSL_CTX_set_security_level(SSL_CTX *ctx, int level);
    int SSL_CTX_set_cipher_list(SSL_CTX *ctx, const char *list);
    int SSL_CTX_set_session_id_context(SSL_CTX *ctx, const unsigned char *id, unsigned int len);
    int SSL_CTX_set_num_tickets(SSL_CTX *ctx, size_t count);
    long SSL_CTX_set_timeout(SSL_CTX *ctx, long seconds);
    void SSL_CTX_set_verify(SSL_CTX *ctx, int mode, verify_cb callback);
    void SSL_CTX_set_verify_depth(SSL_CTX *ctx, int depth);
    void SSL_CTX_set1_cert_store(SSL_CTX *ctx, X509_STORE *store);
    void SSL_CTX_set_client_CA_list(SSL_CTX *ctx, OPENSSL_STACK *names);
    int SSL_CTX_set0_tmp_dh_pkey(SSL_CTX *ctx, EVP_PKEY *key);
    int SSL_CTX_use_cert_and_key(SSL_CTX *ctx, X509 *x509, EVP_PKEY *key, OPENSSL_STACK *chain,
                                 int override);
    int SSL_CTX_dane_enable(SSL_CTX *ctx);
    int SSL_CTX_dane_mtype_set(SSL_CTX *ctx, const EVP_MD *md, uint8_t mtype, uint8_t ord);
    void SSL_CTX_set_client_hello_cb(SSL_CTX *ctx, hello_cb callback, void *arg);
    void SSL_CTX_sess_set_new_cb(SSL_CTX *ctx, new_session_cb callback);
    void SSL_CTX_sess_set_get_cb(SSL_CTX *ctx, get_session_cb callback);
    int SSL_CTX_set_tlsext_ticket_key_evp_cb(SSL_CTX *ctx, ticket_cb callback);
    int SSL_CTX_set1_server_cert_type(SSL_CTX *ctx, const unsigned char *types, size_t len);
    int SSL_CTX_set1_client_cert_type(SSL_CTX *ctx, const unsigned char *types, size_t len);

    SSL *SSL_new(SSL_CTX *ctx);
    void SSL_free(SSL *ssl);
    int SSL_set_ex_data(SSL *ssl, int idx, void *data);
    void *SSL_get_ex_data(const SSL *ssl, int idx);
    int SSL_get_ex_data_X509_STORE_CTX_idx(void);
    long SSL_ctrl(SSL *ssl, int cmd, long larg, void *parg);
    void SSL_set_bio(SSL *ssl, BIO *rbio, BIO *wbio);
    void SSL_set_accept_state(SSL *ssl);
    void SSL_set_connect_state(SSL *ssl);
    int SSL_do_handshake(SSL *ssl);
    int SSL_get_error(const SSL *ssl, int ret);
    int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *read);
    int SSL_write_ex(SSL *ssl, const void *buf, size_t num, size_t *written);
    int SSL_shutdown(SSL *ssl);
    int SSL_session_reused(const SSL *ssl);
    int SSL_export_keying_material(SSL *ssl, unsigned char *out, size_t olen, const char *label,
                                   size_t llen, const unsigned char *context, size_t clen,
                                   int use_context);
    int SSL_version(const SSL *ssl);
    const char *SSL_get_version(const SSL *ssl);
    const SSL_CIPHER *SSL_get_current_cipher(const SSL *ssl);
    const char *SSL_CIPHER_get_name(const SSL_CIPHER *cipher);
    int SSL_CIPHER_get_bits(const SSL_CIPHER *cipher, int *alg_bits);
    X509 *SSL_get0_peer_certificate(const SSL *ssl);
    X509 *SSL_get_certificate(const SSL *ssl);
    EVP_PKEY *SSL_get_privatekey(const SSL *ssl);
    OPENSSL_STACK *SSL_get_peer_cert_chain(const SSL *ssl);
    long SSL_get_verify_result(const SSL *ssl);
    int SSL_get_peer_signature_type_nid(const SSL *ssl, int *nid);
    int SSL_get_signature_type_nid(const SSL *ssl, int *nid);
    const char *SSL_get0_group_name(SSL *ssl);
    const char *SSL_state_string_long(const SSL *ssl);
    const char *SSL_alert_type_string_long(int value);
    const char *SSL_alert_desc_string_long(int value);
    void SSL_set_info_callback(SSL *ssl, info_cb callback);
    void SSL_set_msg_callback(SSL *ssl, message_cb callback);
    void SSL_trace(int write_p, int version, int content_type, const void *buf, size_t len,
                   SSL *ssl, void *arg);

    int SSL_client_hello_get0_ext(SSL *ssl, unsigned int type, const unsigned char **out,
                                  size_t *outlen);
    size_t SSL_client_hello_get0_session_id(SSL *ssl, const unsigned char **out);
    void SSL_certs_clear(SSL *ssl);
    int SSL_use_cert_and_key(SSL *ssl, X509 *x509, EVP_PKEY *key, OPENSSL_STACK *chain,
                             int override);

    int SSL_add1_host(SSL *ssl, const char *name);
    void SSL_set_hostflags(SSL *ssl, unsigned int flags);
    const char *SSL_get0_peername(SSL *ssl);
    int SSL_dane_enable(SSL *ssl, const char *basedomain);
    unsigned long SSL_dane_set_flags(SSL *ssl, unsigned long flags);
    int SSL_dane_tlsa_add(SSL *ssl, uint8_t usage, uint8_t selector, uint8_t mtype,
                          const unsigned char *data, size_t dlen);
    int SSL_get0_dane_tlsa(SSL *ssl, uint8_t *usage, uint8_t *selector, uint8_t *mtype,
                           const unsigned char **data, size_t *dlen);
    EVP_PKEY *SSL_get0_peer_rpk(const SSL *ssl);

    int SSL_set_session(SSL *ssl, SSL_SESSION *session);
    const unsigned char *SSL_SESSION_get_id(const SSL_SESSION *session, unsigned int *len);
    int SSL_SESSION_is_resumable(const SSL_SESSION *session);
    int SSL_SESSION_has_ticket(const SSL_SESSION *session);
    SSL_SESSION *SSL_SESSION_dup(const SSL_SESSION *session);
    void SSL_SESSION_free(SSL_SESSION *session);
    SSL_SESSION *d2i_SSL_SESSION(SSL_SESSION **target, const unsigned char **data, long len);
    int i2d_SSL_SESSION(const SSL_SESSION *session, unsigned char **target);
"""
LONGEST: Final = 1 << 20  # octets of anything that the library encodes for us


_MOST: Final = 16  # errors that the library keeps for a thread
_HAS_TEXT: Final = 2  # ERR_TXT_STRING


def _opened(ffi: cffi.FFI) -> tuple[Ssl, Crypto]:
    try:
        crypto = ffi.dlopen(_CRYPTO_NAME)
        ssl = ffi.dlopen(_SSL_NAME)
    except OSError as error:
        raise LibraryMissing(f"cannot load the TLS library: {error}") from None
    return cast(Ssl, ssl), cast(Crypto, crypto)


FFI: Final = cffi.FFI()
FFI.cdef(_TYPES + _CRYPTO + _SSL)
# What the package makes and casts to is parsed here, before master(8) forks: its first use takes
# 2 ms.
PARSED_TYPES: Final = tuple(
    FFI.typeof(name)
    for name in (
        *("char[]", "char **", "unsigned char[]", "unsigned char[64]", "unsigned char **"),
        *("int *", "int[2]", "unsigned int *", "uint8_t *", "size_t *", "long *"),
        *("void (*)(void)", "SSL *", "SSL_SESSION *", "X509 *", "EVP_PKEY **", "OSSL_PARAM[3]"),
        *("OPENSSL_STACK *", "GENERAL_NAME *", "ASN1_STRING *"),
    )
)
SSL, CRYPTO = _opened(FFI)


def text(value: Handle, fallback: str = "") -> str:
    """A string of the library; fallback for NULL."""
    if value == FFI.NULL:
        return fallback
    data = FFI.string(value, LONGEST)
    assert isinstance(data, bytes)  # because it is of type char *
    return data.decode("utf-8", "surrogateescape")


def octets(pointer: Handle, length: int) -> bytes:
    """A copy of memory of the library, whose length it has told. Raises ValueError."""
    if not 0 <= length <= LONGEST:
        raise ValueError(f"the TLS library offers {length} octets")
    return FFI.buffer(pointer, length)[:] if length else b""


_VERSION: Final = CRYPTO.OpenSSL_version_num()  # 0x30000130 is 3.0.19


def at_least(major: int, minor: int) -> bool:
    """Whether the library is of that version or a later one."""
    return (major, minor) <= (_VERSION >> 28, _VERSION >> 20 & 0xFF)


clear_problems: Final = CRYPTO.ERR_clear_error
"""Forget errors of whoever used the library before: Python's own ssl module, perhaps."""


def problems() -> tuple[str, ...]:
    """The errors that the library has kept, oldest first, and forget them."""
    found: list[str] = []
    file, function, data = (FFI.new("char **") for _ in range(3))
    numbers = FFI.new("int[2]")
    for _ in range(_MOST):
        code = CRYPTO.ERR_get_error_all(file, numbers, function, data, numbers + 1)
        if not code:
            break
        buffer = FFI.new("char[]", 256)
        CRYPTO.ERR_error_string_n(code, buffer, 256)
        line = f"{text(buffer)}:{text(file[0])}:{numbers[0]}:"
        if numbers[1] & _HAS_TEXT:
            line += f"{text(data[0])}:"
        found.append(line)
    return tuple(found)
