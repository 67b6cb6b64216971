#ifndef WEIR_COPENSSL_H
#define WEIR_COPENSSL_H

#include <errno.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

// Macros of OpenSSL, which Swift cannot import.

static inline int weir_ssl_ctx_set_min_version(SSL_CTX *context, int version) {
    return (int)SSL_CTX_set_min_proto_version(context, version);
}

static inline void weir_ssl_ctx_set_mode(SSL_CTX *context, long mode) {
    SSL_CTX_set_mode(context, mode);
}

static inline void weir_ssl_ctx_set_read_ahead(SSL_CTX *context) {
    SSL_CTX_set_read_ahead(context, 1);
}

// A handshake in the middle of a connection costs a peer nothing and us everything; compression
// tells secrets by lengths.
static inline void weir_ssl_ctx_refuse_extras(SSL_CTX *context) {
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
}

static inline void weir_ssl_ctx_set_cache_mode(SSL_CTX *context, long mode) {
    SSL_CTX_set_session_cache_mode(context, mode);
}

static inline int weir_ssl_ctx_add1_chain(SSL_CTX *context, X509 *certificate) {
    return (int)SSL_CTX_add1_chain_cert(context, certificate);
}

static inline int weir_ssl_set_host_name(SSL *ssl, const char *name) {
    return (int)SSL_set_tlsext_host_name(ssl, name);
}

static inline long weir_bio_memory(BIO *bio, char **bytes) {
    return BIO_get_mem_data(bio, bytes);
}

// A passphrase can be asked from nobody: without this, OpenSSL asks the terminal.
static inline int weir_no_passphrase(char *buffer, int size, int writes, void *context) {
    (void)buffer; (void)size; (void)writes; (void)context;
    return -1;
}

// MARK: Certificates

// The URI names of a certificate: the first is copied to `uri` when it has no NUL in it and fits.
// Returns how many there are, or -1 for one that cannot be used.
static inline int weir_x509_uri(X509 *certificate, char *uri, int capacity) {
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int count = 0;
    for (int index = 0; index < sk_GENERAL_NAME_num(names); index++) {
        GENERAL_NAME *name = sk_GENERAL_NAME_value(names, index);
        if (name->type != GEN_URI) continue;
        if (++count > 1) continue;
        ASN1_IA5STRING *text = name->d.uniformResourceIdentifier;
        int length = ASN1_STRING_length(text);
        const unsigned char *bytes = ASN1_STRING_get0_data(text);
        if (length >= capacity || memchr(bytes, 0, (size_t)length)) { count = -1; break; }
        memcpy(uri, bytes, (size_t)length);
        uri[length] = 0;
    }
    GENERAL_NAMES_free(names);
    return count;
}

// Seconds until the certificate ends; negative when it has. LLONG_MIN: its date cannot be read.
static inline long long weir_x509_seconds_left(const X509 *certificate) {
    int days = 0, seconds = 0;
    const ASN1_TIME *end = X509_get0_notAfter(certificate);
    if (end == NULL || ASN1_TIME_diff(&days, &seconds, NULL, end) != 1) return LLONG_MIN;
    return (long long)days * 86400 + seconds;
}

// The subject as one line of RFC 2253, in memory to be freed with BIO_free.
static inline BIO *weir_x509_subject(X509 *certificate) {
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL) return NULL;
    X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
    return bio;
}

// MARK: The socket below a session
//
// As BIO_s_socket, with two differences: it says whether the last read emptied the socket, which
// spares an edge-triggered loop one failing recv for each request; and it writes with MSG_NOSIGNAL.

enum { weir_bio_emptied = 0x4000, weir_bio_ended = 0x800 };

static inline int weir_bio_read(BIO *bio, char *bytes, int count) {
    int descriptor = (int)(intptr_t)BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t got = recv(descriptor, bytes, (size_t)count, 0);
    if (got > 0) {
        if (got < count) BIO_set_flags(bio, weir_bio_emptied);
        else BIO_clear_flags(bio, weir_bio_emptied);
        return (int)got;
    }
    BIO_set_flags(bio, got == 0 ? weir_bio_ended : weir_bio_emptied);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
    return (int)got;
}

static inline int weir_bio_write(BIO *bio, const char *bytes, int count) {
    int descriptor = (int)(intptr_t)BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t sent = send(descriptor, bytes, (size_t)count, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
    return (int)sent;
}

static inline long weir_bio_control(BIO *bio, int command, long number, void *pointer) {
    (void)number; (void)pointer;
    if (command == BIO_CTRL_FLUSH) return 1;
    if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, weir_bio_ended) != 0;
    return 0;
}

static inline int weir_bio_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

static inline BIO_METHOD *weir_bio_method(void) {
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weir socket");
    if (method == NULL) return NULL;
    BIO_meth_set_create(method, weir_bio_create);
    BIO_meth_set_read(method, weir_bio_read);
    BIO_meth_set_write(method, weir_bio_write);
    BIO_meth_set_ctrl(method, weir_bio_control);
    return method;
}

// The session reads and writes this descriptor, which stays its owner's to close.
static inline int weir_ssl_attach(SSL *ssl, const BIO_METHOD *method, int descriptor) {
    BIO *bio = BIO_new(method);
    if (bio == NULL) return 0;
    BIO_set_data(bio, (void *)(intptr_t)descriptor);
    SSL_set_bio(ssl, bio, bio);
    return 1;
}

// Whether a read could bring more at once, as far as this side knows.
static inline int weir_ssl_may_have_more(const SSL *ssl) {
    return SSL_has_pending(ssl) || !BIO_test_flags(SSL_get_rbio(ssl), weir_bio_emptied);
}

#endif
