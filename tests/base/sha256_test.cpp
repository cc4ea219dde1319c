#include "base/sha256.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "base/file.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

std::string hash(const std::string &text) { return sha256_hex(text.data(), text.size()); }

// FIPS 180-4 examples and the NIST long message.
TEST(Sha256, EqualsThePublishedVectors) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnHowTheBytesAreCut) {
  std::string bytes;
  for (int i = 0; i < 300; ++i) bytes += static_cast<char>(i * 7);
  for (size_t length : {0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 300}) {
    const std::string whole = sha256_hex(bytes.data(), length);
    for (size_t piece : {1, 3, 63, 64, 65, 130}) {
      Sha256 pieces;
      for (size_t at = 0; at < length; at += piece) pieces.update(bytes.data() + at, std::min(piece, length - at));
      EXPECT_EQ(pieces.hex(), whole) << length << " bytes in pieces of " << piece;
    }
  }
}

// Every padding length, chained into one digest that another implementation gave (see the command).
// python3 -c "import hashlib; d=b''
// for n in range(200): d=hashlib.sha256(d+bytes(i*7%256 for i in range(n))).digest()
// print(d.hex())"
TEST(Sha256, EveryLengthUpTo199EqualsAnotherImplementation) {
  std::array<uint8_t, 32> digest;
  std::string bytes;
  for (int n = 0; n < 200; ++n) {
    Sha256 next;
    if (n > 0) next.update(digest.data(), digest.size());
    digest = next.update(bytes.data(), bytes.size()).digest();
    bytes += static_cast<char>(n * 7);
  }
  std::string hex;
  for (const uint8_t byte : digest) hex += "0123456789abcdef"[byte >> 4], hex += "0123456789abcdef"[byte & 15];
  EXPECT_EQ(hex, "c94f1a20de41245017706cb3ab04d70c3e86f82169dde6a356dd0f96a199924e");
}

TEST(Sha256, ThePlainFormEqualsTheInstructions) {
  std::string bytes;
  for (int i = 0; i < 1000; ++i) bytes += static_cast<char>(i * i);
  for (const size_t length : {0, 1, 64, 640, 1000}) {
    EXPECT_EQ(Sha256(true).update(bytes.data(), length).hex(), sha256_hex(bytes.data(), length));
  }
}

TEST(Sha256, HashesAFileLargerThanItsBuffer) {
  const test::TemporaryFolder folder;
  const std::string content(3000001, 'x');
  std::ofstream(folder / "file") << content;
  EXPECT_EQ(sha256_file(folder / "file"), hash(content));
  EXPECT_FAILS(sha256_file(folder / "absent"), Code::io, "absent");
}

}  // namespace
}  // namespace moe
