// Signed certificates. The command line of OpenSSL makes the keys, and is the independent reference for signatures.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support.h"

namespace {

bool Shell(const std::string &command) { return system((command + " >/dev/null 2>&1").c_str()) == 0; }

class SignatureTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Shell("command -v openssl")) GTEST_SKIP() << "skipped: openssl is not installed";
    std::filesystem::copy(Golden("artifacts/nf4"), artifact_, std::filesystem::copy_options::recursive);
    for (const std::string name : {"ours", "other"})
      ASSERT_TRUE(MakeKey(name, "openssl genpkey -algorithm ed25519 -out " + Private(name)));
  }
  bool MakeKey(const std::string &name, const std::string &command) const {
    return Shell("umask 077; " + command) &&
           Shell("openssl pkey -in " + Private(name) + " -pubout -out " + Public(name));
  }
  std::string Private(const std::string &name) const { return folder_ / (name + ".pem"); }
  std::string Public(const std::string &name) const { return folder_ / (name + ".pub.pem"); }
  CommandResult Verify(const std::string &more) const {
    return Nibble("verify " + artifact_ + " --threads 1 --against " + Golden("artifacts/bf16") + " " + more);
  }
  CommandResult Check(const std::string &more) const { return Nibble("verify " + artifact_ + " --check-only " + more); }
  void Sign() const {
    CommandResult r = Verify("--sign " + Private("ours"));
    ASSERT_EQ(r.code, 0) << r.out << r.err;
  }
  // One bit of the byte at `at` (from the end: negative) is another.
  static void Flip(const std::string &path, int64_t at) {
    std::string bytes = ReadFile(path);
    bytes[at < 0 ? bytes.size() + at : at] ^= 4;
    WriteFile(path, bytes);
  }
  TempFolder folder_;
  const std::string artifact_ = folder_ / "nf4", certificate_ = artifact_ + "/nibble.json",
                    signature_ = certificate_ + ".sig";
};

#define EXPECT_SAYS(result, exit_code, words)                                                           \
  do {                                                                                                  \
    const CommandResult &said = (result);                                                               \
    EXPECT_EQ(said.code, exit_code) << said.out << said.err;                                            \
    EXPECT_NE((said.out + said.err).find(words), std::string::npos) << "not found: " << (words) << "\n" \
                                                                    << said.out << said.err;            \
  } while (0)

// The fingerprint as OpenSSL and coreutils make it.
std::string Fingerprint(const std::string &pub, const std::string &scratch) {
  if (!Shell("sh -c 'openssl pkey -pubin -in " + pub + " -outform DER | sha256sum >" + scratch + "'")) return "";
  return ReadFile(scratch).substr(0, 64);
}

TEST_F(SignatureTest, IsMadeAndConfirmed) {
  CommandResult r = Verify("--sign " + Private("ours"));
  const std::string key = Fingerprint(Public("ours"), folder_ / "sum");
  ASSERT_EQ(key.size(), 64u);
  EXPECT_SAYS(r, 0, "the certificate is signed by key SHA256:" + key);
  EXPECT_EQ(r.err.find("warning"), std::string::npos) << r.err;
  EXPECT_EQ(ReadFile(signature_).size(), 64u);
  EXPECT_SAYS(Check("--key " + Public("ours")), 0, "it is signed by key SHA256:" + key);
  EXPECT_SAYS(Check(""), 0, "it is signed, not checked");
  r = Check("--json --key " + Public("ours"));
  for (const std::string &words :
       {std::string("\"signed\":\ttrue"), std::string("\"signature\":\t\"good\""), "\"key_sha256\":\t\"" + key})
    EXPECT_SAYS(r, 0, words);
  EXPECT_SAYS(Check("--json"), 0, "\"signed\":\tfalse");
  EXPECT_SAYS(Check("--json"), 0, "\"signature\":\t\"unchecked\"");
  EXPECT_SAYS(Check("--model-card --key " + Public("ours")), 0, "| signed | Ed25519, key `SHA256:" + key + "` |");
  EXPECT_EQ(Check("--model-card").out.find("| signed"), std::string::npos);
}

TEST_F(SignatureTest, IsWhatOpensslMakesAndChecks) {
  Sign();
  const std::string files = " -rawin -in " + certificate_ + " -sigfile " + signature_;
  EXPECT_TRUE(Shell("openssl pkeyutl -verify -pubin -inkey " + Public("ours") + files));
  EXPECT_FALSE(Shell("openssl pkeyutl -verify -pubin -inkey " + Public("other") + files));
  ASSERT_TRUE(Shell("openssl pkeyutl -sign -rawin -inkey " + Private("other") + " -in " + certificate_ + " -out " +
                    signature_));
  EXPECT_SAYS(Check("--key " + Public("other")), 0, "it is signed by key SHA256:");
  EXPECT_SAYS(Check("--key " + Public("ours")), 1, "signature-bad");
  // Ed25519 leaves nothing to chance: the same key and bytes make the same signature.
  const std::string theirs = ReadFile(signature_);
  ASSERT_TRUE(Shell("openssl pkeyutl -sign -rawin -inkey " + Private("other") + " -in " + certificate_ + " -out " +
                    (folder_ / "again")));
  EXPECT_EQ(ReadFile(folder_ / "again"), theirs);
}

TEST_F(SignatureTest, CoversEveryByteOfTheCertificate) {
  Sign();
  const std::string good = ReadFile(certificate_);
  ASSERT_GT(good.size(), 1000u);
  for (size_t at = 0; at < good.size(); at += good.size() / 40 + 1) {  // its braces, words, figures, spaces
    Flip(certificate_, (int64_t)at);
    CommandResult r = Check("--key " + Public("ours"));
    EXPECT_SAYS(r, 1, "signature-bad");
    EXPECT_NE(r.out.find("is not looked into"), std::string::npos) << r.out;
    WriteFile(certificate_, good);
  }
  WriteFile(certificate_, good + " ");
  EXPECT_SAYS(Check("--key " + Public("ours")), 1, "signature-bad");
  EXPECT_EQ(Check("").code, 0);
  WriteFile(certificate_, "");
  EXPECT_SAYS(Check("--key " + Public("ours")), 1, "signature-bad");
}

TEST_F(SignatureTest, ThatIsChangedIsBad) {
  Sign();
  const std::string good = ReadFile(signature_);
  for (int at : {0, 31, 32, 63}) {
    Flip(signature_, at);
    EXPECT_SAYS(Check("--key " + Public("ours")), 1, "signature-bad");
    EXPECT_SAYS(Check("--json --key " + Public("ours")), 1, "\"signature\":\t\"bad\"");
    WriteFile(signature_, good);
  }
  EXPECT_SAYS(Check("--key " + Public("other")), 1, "signature-bad");
}

TEST_F(SignatureTest, OfAChangedArtifactDoesNotHelp) {
  Sign();
  Flip(artifact_ + "/model.safetensors", -1000);
  EXPECT_SAYS(Check("--key " + Public("ours")), 1, "certified-part-changed");
  Flip(artifact_ + "/model.safetensors", -1000);
  WriteFile(artifact_ + "/modeling_llama.py", "import os");
  EXPECT_SAYS(Check("--key " + Public("ours")), 1, "certified-part-new");
}

TEST_F(SignatureTest, ThatIsMissingOrNoSignatureIsSaid) {
  Sign();
  const std::string good = ReadFile(signature_);
  std::filesystem::remove(signature_);
  EXPECT_SAYS(Check("--key " + Public("ours")), 1, "signature-missing");
  EXPECT_SAYS(Check("--model-card --key " + Public("ours")), 1, "| verdict | failed (signature) |");
  EXPECT_SAYS(Check(""), 0, "it is not signed");
  for (const std::string &bytes : {std::string(), good.substr(0, 63), good + "\n", std::string(100000, 'x')}) {
    WriteFile(signature_, bytes);
    EXPECT_SAYS(Check("--key " + Public("ours")), 3, "nibble.json.sig: " + std::to_string(bytes.size()) + " bytes");
    EXPECT_SAYS(Check(""), 0, "signature-malformed");
  }
  std::filesystem::remove(signature_);
  std::filesystem::create_directory(signature_);
  EXPECT_SAYS(Check("--key " + Public("ours")), 3, "not a regular file");
  std::filesystem::remove(signature_);
  ASSERT_EQ(mkfifo(signature_.c_str(), 0600), 0);
  EXPECT_SAYS(Check("--key " + Public("ours")), 3, "not a regular file");
}

TEST_F(SignatureTest, RefusesWhatIsNoKey) {
  Sign();
  const std::string bad = Private("bad"), bad_pub = Public("bad");
  auto refuses = [&](const std::string &words) {
    std::filesystem::remove(signature_);
    EXPECT_SAYS(Verify("--sign " + bad), 3, words);
    EXPECT_FALSE(Exists(signature_));
  };
  ASSERT_TRUE(MakeKey("bad", "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out " + bad));
  refuses("Ed25519 is required");
  EXPECT_SAYS(Check("--key " + bad_pub), 3, "Ed25519 is required");
  ASSERT_TRUE(MakeKey("bad", "openssl genpkey -algorithm ed448 -out " + bad));
  refuses("an ED448 key; Ed25519 is required");
  // A passphrase is asked of nobody, on no terminal: the command ends by itself.
  ASSERT_TRUE(Shell("openssl pkey -in " + Private("ours") + " -aes256 -passout pass:secret -out " + bad));
  refuses("the key has a passphrase");
  std::filesystem::copy_file(Public("ours"), bad, std::filesystem::copy_options::overwrite_existing);
  refuses("no private key in PEM form");
  EXPECT_SAYS(Check("--key " + Private("ours")), 3, "no public key in PEM form");
  const std::string key = ReadFile(Private("ours"));
  for (const std::string &bytes :
       {std::string(), key.substr(0, key.size() / 2), std::string("no key\n"), std::string(1000, '\0')}) {
    WriteFile(bad, bytes);
    refuses("no private key in PEM form");
  }
  WriteFile(bad, std::string(1 << 20, 'x'));
  refuses("1048576 bytes, more than");
  std::filesystem::remove(bad);
  refuses("no such file");
  std::filesystem::create_directory(bad);
  refuses("not a regular file");
  EXPECT_SAYS(Check("--key " + bad), 3, "not a regular file");
  std::filesystem::remove(bad);
  ASSERT_EQ(mkfifo(bad.c_str(), 0600), 0);
  refuses("not a regular file");
  EXPECT_SAYS(Check("--key " + bad), 3, "not a regular file");
}

// The original is no model, so a run that opened it would end differently.
TEST_F(SignatureTest, AKeyIsReadBeforeAnythingElse) {
  CommandResult r =
      Nibble("verify " + (folder_ / "none") + " --against " + (folder_ / "none") + " --sign " + (folder_ / "no-key"));
  EXPECT_SAYS(r, 3, "no-key: no such file");
}

TEST_F(SignatureTest, AKeyThatOthersCanReadIsWarnedOf) {
  ASSERT_EQ(chmod(Private("ours").c_str(), 0644), 0);
  EXPECT_SAYS(Verify("--sign " + Private("ours")), 0, "every user can read or change this private key");
  const std::string inside = artifact_ + "/key.pem";
  std::filesystem::copy_file(Private("other"), inside);
  EXPECT_SAYS(Verify("--sign " + inside), 0, "the private key lies in the artifact's folder");
}

// An older signature leaves with the certificate that it was of, and only then.
TEST_F(SignatureTest, LeavesWithItsCertificate) {
  Sign();
  CommandResult r = Verify("");  // of the same files and as deep: another certificate
  EXPECT_SAYS(r, 0, "nibble.json.sig was of the certificate before, and is removed");
  EXPECT_FALSE(Exists(signature_));
  EXPECT_SAYS(Check("--key " + Public("ours")), 1, "signature-missing");
  EXPECT_EQ(Verify("--sign " + Private("other")).code, 0);
  EXPECT_EQ(Verify("--sign " + Private("ours")).code, 0);  // signed anew
  EXPECT_EQ(Check("--key " + Public("ours")).code, 0);
}

// A run that measured less does not vouch for what another measured, and leaves its certificate and signature.
TEST_F(SignatureTest, OfMoreIsKeptAndNotMadeByLess) {
  std::string text;
  for (int i = 0; i < 40; i++) text += "The quick brown fox jumps over the lazy dog.\n";
  WriteFile(folder_ / "text.txt", text);
  ASSERT_EQ(Verify("--profile loose --ctx 64 --text " + (folder_ / "text.txt") + " --sign " + Private("ours")).code, 0);
  const std::string deep = ReadFile(certificate_), signature = ReadFile(signature_);
  EXPECT_SAYS(Verify(""), 0, "the certificate stays as it was");
  EXPECT_SAYS(Verify("--sign " + Private("other")), 2, "says more than this run measured");
  EXPECT_EQ(ReadFile(certificate_), deep);
  EXPECT_EQ(ReadFile(signature_), signature);
  EXPECT_EQ(Check("--key " + Public("ours")).code, 0);
  EXPECT_EQ(Verify("--sign " + Private("other") + " --certificate " + (folder_ / "c.json")).code, 0);
  EXPECT_EQ(Check("--key " + Public("other") + " --certificate " + (folder_ / "c.json")).code, 0);
}

TEST_F(SignatureTest, StandsBesideItsCertificate) {
  const std::string inside = artifact_ + "/c.json";
  ASSERT_EQ(Verify("--certificate " + inside + " --sign " + Private("ours")).code, 0);
  EXPECT_TRUE(Exists(inside + ".sig"));
  EXPECT_FALSE(Exists(signature_));
  const std::string check = "--certificate " + inside + " --key " + Public("ours");
  EXPECT_EQ(Check(check).code, 0) << Check(check).out;
  // A link in its place would take another file out of what is covered.
  WriteFile(artifact_ + "/modeling_llama.py", ReadFile(inside + ".sig"));
  std::filesystem::remove(inside + ".sig");
  for (bool hard : {false, true}) {
    if (hard)
      std::filesystem::create_hard_link(artifact_ + "/modeling_llama.py", inside + ".sig");
    else
      std::filesystem::create_symlink("modeling_llama.py", inside + ".sig");
    EXPECT_SAYS(Check(check), 1, "fault: modeling_llama.py: it was not there");
    std::filesystem::remove(inside + ".sig");
  }
}

TEST_F(SignatureTest, ReplacesOnlyASignature) {
  WriteFile(signature_, "my notes\n");
  EXPECT_SAYS(Verify("--sign " + Private("ours")), 2, "nibble.json.sig");
  EXPECT_EQ(ReadFile(signature_), "my notes\n");
  EXPECT_FALSE(Exists(certificate_));  // and it was looked at first
  EXPECT_EQ(Verify("").code, 0);
  EXPECT_EQ(ReadFile(signature_), "my notes\n");
  EXPECT_EQ(Verify("--force --sign " + Private("ours")).code, 0);
  EXPECT_EQ(Check("--key " + Public("ours")).code, 0);
  // The key itself, whatever --force says.
  const std::string key = folder_ / "c.json.sig", bytes = ReadFile(Private("ours"));
  std::filesystem::rename(Private("ours"), key);
  EXPECT_SAYS(Verify("--force --certificate " + (folder_ / "c.json") + " --sign " + key), 2,
              "would replace the source");
  EXPECT_EQ(ReadFile(key), bytes);
}

TEST_F(SignatureTest, ThatCannotBeWrittenIsNoSuccess) {
  const std::string certificate = folder_ / "none/c.json";
  EXPECT_EQ(Verify("--certificate " + certificate + " --sign " + Private("ours")).code, 4);
}

TEST_F(SignatureTest, RefusesWrongUsage) {
  const std::string sign = "--sign " + Private("ours"), key = "--key " + Public("ours");
  EXPECT_SAYS(Verify(key), 2, "--key is for --check-only");
  EXPECT_SAYS(Check(sign), 2, "--sign signs what is measured");
  EXPECT_SAYS(Verify("--no-certificate " + sign), 2, "--sign needs a certificate");
  EXPECT_SAYS(Nibble("verify " + artifact_ + " " + sign), 2, "--sign needs a certificate");
  EXPECT_SAYS(Nibble("verify " + Golden("gguf/tiny.gguf") + " --against " + Golden("gguf/tiny.gguf") + " " + sign), 2,
              "--certificate FILE says where");
}

}  // namespace
