#include <gtest/gtest.h>

#include "tests/support.h"

namespace {

const char kText[] =
    "The quick brown fox jumps over the lazy dog, and then it jumps back again, because the dog is still there.\n";

// A copy of a golden artifact that a test may write into, a text, and the command that verifies it.
class CertificateTest : public testing::Test {
 protected:
  void Copy(const std::string &name) {
    artifact_ = folder_ / name;
    std::filesystem::copy(Golden("artifacts/" + name), artifact_, std::filesystem::copy_options::recursive);
    std::string text;
    for (int i = 0; i < 5; i++) text += kText;
    WriteFile(folder_ / "text.txt", text);
  }
  std::string Args(const std::string &more) const {
    return "verify " + artifact_ + " --threads 1 --against " + Golden("artifacts/bf16") + " " + more;
  }
  std::string WithText(const std::string &more) const {
    return Args("--text " + (folder_ / "text.txt") + " --ctx 64 --profile loose " + more);
  }
  TempFolder folder_;
  std::string artifact_;
};

// The number that stands first under `key` in what --json printed; -1: none.
double Figure(const std::string &json, const std::string &key) {
  size_t at = json.find("\"" + key + "\":");
  return at == std::string::npos ? -1.0 : atof(json.c_str() + at + key.size() + 3);
}

TEST_F(CertificateTest, IsWrittenAndConfirmedLater) {
  Copy("nf4");
  CommandResult r = Nibble(WithText(""));
  ASSERT_EQ(r.code, 0) << r.out << r.err;
  std::string json = ReadFile(artifact_ + "/nibble.json");
  for (const char *key : {"\"verdict\": \"sound\"", "\"sha256\"", "\"kl_mean\"", "\"max_kl\"", "\"source\""})
    EXPECT_NE(json.find(key), std::string::npos) << key;
  EXPECT_FALSE(Exists(artifact_ + "/nibble.json.partial"));
  r = Nibble(Args("--check-only"));
  EXPECT_EQ(r.code, 0) << r.out << r.err;
}

TEST_F(CertificateTest, KeepsWhatElseStandsInNibbleJson) {
  Copy("nf4");
  WriteFile(artifact_ + "/nibble.json", R"({"command": "quantize", "settings": {"method": "nf4"}})");
  ASSERT_EQ(Nibble(Args("")).code, 0);
  std::string json = ReadFile(artifact_ + "/nibble.json");
  EXPECT_NE(json.find("\"command\": \"quantize\""), std::string::npos) << json.substr(0, 300);
  EXPECT_NE(json.find("\"certificate\""), std::string::npos);
}

TEST_F(CertificateTest, NamesTheTensorThatChangedByOneBit) {
  Copy("nf4");
  ASSERT_EQ(Nibble(Args("")).code, 0);
  std::string path = artifact_ + "/model.safetensors", bytes = ReadFile(path);
  bytes[bytes.size() - 1000] ^= 1;
  WriteFile(path, bytes);
  CommandResult r = Nibble("verify " + artifact_ + " --check-only");
  EXPECT_EQ(r.code, 1) << r.out;
  EXPECT_NE(r.out.find("certified-part-changed"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("1 fault,"), std::string::npos) << r.out;
}

TEST_F(CertificateTest, NoticesAnotherConfig) {
  Copy("nf4");
  ASSERT_EQ(Nibble(Args("")).code, 0);
  std::string config = ReadFile(artifact_ + "/config.json");
  WriteFile(artifact_ + "/config.json", config + "\n");
  CommandResult r = Nibble("verify " + artifact_ + " --check-only");
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.out.find("config.json"), std::string::npos) << r.out;
}

TEST_F(CertificateTest, CoversEveryFileOfTheFolder) {
  Copy("nf4");
  std::filesystem::create_directory(artifact_ + "/1_Pooling");
  WriteFile(artifact_ + "/1_Pooling/config.json", "{}");
  WriteFile(artifact_ + "/generation_config.json", "{}");
  ASSERT_EQ(Nibble(Args("--report " + artifact_ + "/report.html")).code, 0);
  auto check = [&] { return Nibble("verify " + artifact_ + " --check-only"); };
  ASSERT_EQ(check().code, 0) << check().out;
  WriteFile(artifact_ + "/README.md", "the model card");  // not covered: that is where the certificate's table goes
  WriteFile(artifact_ + "/.gitattributes", "");
  EXPECT_EQ(check().code, 0) << check().out;
  struct Change {
    const char *file, *cause;
  };
  for (const Change &c : std::vector<Change>{{"generation_config.json", "certified-part-changed"},
                                             {"1_Pooling/config.json", "certified-part-changed"},
                                             {"report.html", "certified-part-changed"},
                                             {"modeling_llama.py", "certified-part-new"},
                                             {"pytorch_model.bin", "certified-part-new"},
                                             {"1_Pooling/README.md", "certified-part-new"}}) {
    std::string path = artifact_ + "/" + c.file, before = Exists(path) ? ReadFile(path) : "";
    bool is_new = !Exists(path);
    WriteFile(path, before + " ");
    CommandResult r = check();
    EXPECT_EQ(r.code, 1) << c.file;
    EXPECT_NE(r.out.find(std::string("fault: ") + c.file), std::string::npos) << r.out;
    EXPECT_NE(r.out.find(c.cause), std::string::npos) << r.out;
    std::filesystem::remove(path);
    r = check();
    EXPECT_EQ(r.code, is_new ? 0 : 1) << c.file << r.out;
    if (!is_new) {
      EXPECT_NE(r.out.find("certified-part-missing"), std::string::npos) << r.out;
      WriteFile(path, before);
    }
  }
  EXPECT_EQ(check().code, 0);
}

// Replaces the first `from` after `after` in the certificate.
void Edit(const std::string &path, const std::string &after, const std::string &from, const std::string &to) {
  std::string json = ReadFile(path);
  size_t at = json.find(from, json.find(after));
  ASSERT_NE(at, std::string::npos) << from;
  WriteFile(path, json.replace(at, from.size(), to));
}

TEST_F(CertificateTest, FiguresAreHeldAgainstThresholds) {
  Copy("nf4");
  ASSERT_EQ(Nibble(WithText("")).code, 0);
  std::string path = artifact_ + "/nibble.json", good = ReadFile(path), check = "verify " + artifact_ + " --check-only";
  CommandResult r = Nibble(check + " --max-kl 100 --min-top1 1%");
  EXPECT_EQ(r.code, 0) << r.out;
  EXPECT_NE(r.out.find("certified: behaviour of "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("it is not signed"), std::string::npos) << r.out;
  r = Nibble(check + " --max-kl 0.000001");
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.out.find("kl-too-large"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find(" 1 fault,"), std::string::npos) << r.out;  // and not of a profile that was not asked for
  EXPECT_EQ(Nibble(check + " --max-ppl-increase 1e-9").code, 1);
  r = Nibble(check + " --json");
  EXPECT_NE(r.out.find("\"depth\":\t\"behaviour\""), std::string::npos) << r.out.substr(0, 300);
  EXPECT_NE(r.out.find("\"signed\":\tfalse"), std::string::npos);
  EXPECT_GT(Figure(r.out, "tensors"), 1);
  EXPECT_GT(Figure(r.out, "kl_mean"), 0);
  r = Nibble(check + " --model-card");
  EXPECT_NE(r.out.find("| verdict | sound (behaviour) |"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("| KL divergence | mean 0."), std::string::npos) << r.out;
  EXPECT_NE(r.out.find(" compared, 0 flagged; relative error 0."), std::string::npos) << r.out;

  struct Lie {
    const char *after, *from, *to, *cause;
  };
  for (const Lie &lie :
       std::vector<Lie>{{"\"behaviour\": {", "\"kl_mean\": ", "\"kl_mean\": 9", "kl-too-large"},
                        {"\"behaviour\": {", "\"kl_mean\": ", "\"kl_moan\": ", "kl-too-large"},
                        {"\"thresholds\": {", "\"max_kl\": ", "\"max_kl\": 1e-9,\"was\":", "kl-too-large"},
                        {"", "\"reasons\": [", "\"reasons\": [1", "certificate-contradicts-itself"},
                        {"", "\"verdict\": \"sound\"", "\"verdict\": \"fine\"", "certified-as-failed"}}) {
    WriteFile(path, good);
    Edit(path, lie.after, lie.from, lie.to);
    r = Nibble(check);
    EXPECT_EQ(r.code, 1) << lie.to;
    EXPECT_NE(r.out.find(lie.cause), std::string::npos) << r.out;
  }
  for (const char *depth : {"\"deep\"", "7"}) {
    WriteFile(path, good);
    Edit(path, "", "\"depth\": \"behaviour\"", std::string("\"depth\": ") + depth);
    EXPECT_EQ(Nibble(check).code, 3) << depth;
  }
  WriteFile(path, good);
  Edit(path, "", "\"behaviour\": {", "\"behavior\": {");
  EXPECT_EQ(Nibble(check).code, 3);
}

TEST_F(CertificateTest, OfLessDoesNotReplaceOneOfMore) {
  Copy("nf4");
  ASSERT_EQ(Nibble(WithText("")).code, 0);
  std::string path = artifact_ + "/nibble.json", deep = ReadFile(path);
  CommandResult r = Nibble(Args(""));
  EXPECT_EQ(r.code, 0);
  EXPECT_NE(r.err.find("the certificate stays as it was"), std::string::npos) << r.err;
  EXPECT_EQ(ReadFile(path), deep);
  // Of other files, or of a failure, it does.
  WriteFile(artifact_ + "/generation_config.json", "{}");
  ASSERT_EQ(Nibble(Args("")).code, 0);
  EXPECT_NE(ReadFile(path).find("\"depth\": \"weights\""), std::string::npos);
  r = Nibble("verify " + artifact_ + " --check-only --max-kl 1");
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.out.find("behaviour-not-certified"), std::string::npos) << r.out;
}

TEST_F(CertificateTest, ThresholdsAreShares) {
  Copy("nf4");
  CommandResult r = Nibble(WithText("--no-certificate --min-top1 99.99%"));
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.out.find("at least 99.99% is required"), std::string::npos) << r.out;
  EXPECT_NE(Nibble(WithText("--no-certificate --min-top1 0.9999")).out.find("at least 99.99% is required"),
            std::string::npos);
  EXPECT_EQ(Nibble(WithText("--no-certificate --min-top1 1e-9 --max-ppl-increase 5000%")).code, 0);
  for (const char *wrong : {"--min-top1 95", "--min-top1 101%", "--min-top1 0", "--min-top1 x", "--min-top1 5%%",
                            "--max-ppl-increase 5", "--max-ppl-increase -1%", "--min-top1 nan"})
    EXPECT_EQ(Nibble(WithText(wrong)).code, 2) << wrong;
}

TEST_F(CertificateTest, OfAFailureConfirmsNothing) {
  Copy("nf4");
  CommandResult r = Nibble(WithText("--max-kl 0.000001"));
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.out.find("kl-too-large"), std::string::npos) << r.out;
  EXPECT_NE(ReadFile(artifact_ + "/nibble.json").find("\"verdict\": \"failed\""), std::string::npos);
  r = Nibble("verify " + artifact_ + " --check-only");
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.out.find("certified-as-failed"), std::string::npos) << r.out;
}

TEST_F(CertificateTest, GoesWhereItIsTold) {
  Copy("int8");
  ASSERT_EQ(Nibble(Args("--certificate " + (folder_ / "c.json"))).code, 0);
  EXPECT_FALSE(Exists(artifact_ + "/nibble.json"));
  EXPECT_EQ(Nibble("verify " + artifact_ + " --check-only --certificate " + (folder_ / "c.json")).code, 0);
  EXPECT_EQ(Nibble("verify " + artifact_ + " --check-only").code, 3);  // there is none
}

TEST_F(CertificateTest, BehaviourOfTheSameModelIsTheSame) {
  Copy("bf16");
  CommandResult r = Nibble(WithText("--no-certificate --profile strict"));
  EXPECT_EQ(r.code, 0) << r.out << r.err;
  EXPECT_NE(r.out.find("KL divergence   mean 0 "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("likeliest token 100.00%"), std::string::npos) << r.out;
  EXPECT_FALSE(Exists(artifact_ + "/nibble.json"));
}

TEST_F(CertificateTest, BehaviourAgreesWithPpl) {
  Copy("int8");
  CommandResult v = Nibble(WithText("--no-certificate --json"));
  CommandResult p = Nibble("ppl " + artifact_ + " --threads 1 --json --ctx 64 --text " + (folder_ / "text.txt"));
  ASSERT_EQ(v.code, 0) << v.out << v.err;
  ASSERT_EQ(p.code, 0) << p.err;
  EXPECT_GT(Figure(p.out, "perplexity"), 1);
  EXPECT_NEAR(Figure(v.out, "perplexity"), Figure(p.out, "perplexity"), 1e-4 * Figure(p.out, "perplexity"));
}

// Windows of more tokens than are run at a time, in two models that can take it; and one that they cannot.
TEST_F(CertificateTest, ALongWindowAgreesWithPpl) {
  for (const char *name : {"int8", "bf16"}) {
    Copy(name);
    std::string config = ReadFile(artifact_ + "/config.json"), key = "\"max_position_embeddings\": 256";
    ASSERT_NE(config.find(key), std::string::npos);
    WriteFile(artifact_ + "/config.json", config.replace(config.find(key), key.size(), key + "0"));
  }
  std::string text;
  for (int i = 0; i < 30; i++) text += std::to_string(i * 7919) + " " + kText;
  WriteFile(folder_ / "text.txt", text);
  auto verify = [&](const std::string &ctx) {
    return Nibble("verify " + (folder_ / "int8") + " --against " + (folder_ / "bf16") + " --text " +
                  (folder_ / "text.txt") + " --threads 1 --profile loose --no-certificate --json --ctx " + ctx);
  };
  CommandResult v = verify("1200");
  CommandResult p = Nibble("ppl " + (folder_ / "int8") + " --json --ctx 1200 --text " + (folder_ / "text.txt"));
  ASSERT_EQ(v.code, 0) << v.out << v.err;
  ASSERT_EQ(p.code, 0) << p.err;
  EXPECT_NEAR(Figure(v.out, "perplexity"), Figure(p.out, "perplexity"), 1e-4 * Figure(p.out, "perplexity"));
  EXPECT_EQ(Figure(v.out, "tokens"), Figure(p.out, "tokens"));
  EXPECT_EQ(Figure(p.out, "chunks"), 2);
  v = verify("2561");
  EXPECT_EQ(v.code, 2);
  EXPECT_NE(v.err.find("--ctx 2561: "), std::string::npos) << v.err;
}

TEST_F(CertificateTest, AReportInAFolderThatIsNotThereIsTheSystemsNo) {
  CommandResult r = Nibble("verify " + Golden("artifacts/nf4") + " --report " + (folder_ / "none/out.html"));
  EXPECT_EQ(r.code, 4) << r.err;
  EXPECT_NE(r.err.find("none/out.html"), std::string::npos) << r.err;
}

TEST_F(CertificateTest, ReportStandsAlone) {
  Copy("nf4");
  WriteFile(folder_ / "text.txt", ReadFile(folder_ / "text.txt") + "<script>alert('&')</script> " + kText);
  CommandResult r = Nibble(WithText("--no-certificate --report " + (folder_ / "r.html")));
  ASSERT_EQ(r.code, 0) << r.out << r.err;
  std::string page = ReadFile(folder_ / "r.html");
  EXPECT_EQ(page.compare(0, 15, "<!DOCTYPE html>"), 0);
  EXPECT_NE(page.find("</html>"), std::string::npos);
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("http://"), std::string::npos);
  EXPECT_EQ(page.find("https://"), std::string::npos);
  size_t opened = 0, closed = 0;
  for (size_t at = 0; (at = page.find("<svg", at)) != std::string::npos; at++) opened++;
  for (size_t at = 0; (at = page.find("</svg>", at)) != std::string::npos; at++) closed++;
  EXPECT_EQ(opened, 5u);
  EXPECT_EQ(closed, opened);
}

// A real browser lays the page out and prints it; whatever it has to say about it would be a CONSOLE line.
TEST_F(CertificateTest, ReportRendersInABrowserWithoutAnError) {
  if (system("command -v chromium >/dev/null") != 0) GTEST_SKIP() << "skipped: chromium is not installed";
  Copy("nf4");
  ASSERT_EQ(Nibble(WithText("--no-certificate --report " + (folder_ / "r.html"))).code, 0);
  const std::string browser = "HOME=" + folder_.path() + " timeout 120 chromium --headless=new --no-sandbox " +
                              "--disable-gpu --enable-logging=stderr --user-data-dir=" + (folder_ / "profile") + " ";
  const std::string page = " file://" + (folder_ / "r.html") + " >" + (folder_ / "out") + " 2>" + (folder_ / "err");
  for (const std::string scheme : {"0", "1"}) {  // dark, light
    const std::string shot = folder_ / ("shot" + scheme + ".png");
    const std::string colours = "--blink-settings=preferredColorScheme=" + scheme + " --screenshot=" + shot;
    ASSERT_EQ(system((browser + colours + page).c_str()), 0) << ReadFile(folder_ / "err");
    EXPECT_EQ(ReadFile(folder_ / "err").find("CONSOLE"), std::string::npos) << ReadFile(folder_ / "err");
    EXPECT_GT(ReadFile(shot).size(), 10000u);
  }
  EXPECT_NE(ReadFile(folder_ / "shot0.png"), ReadFile(folder_ / "shot1.png"));
  ASSERT_EQ(system((browser + "--print-to-pdf=" + (folder_ / "r.pdf") + page).c_str()), 0);
  EXPECT_EQ(ReadFile(folder_ / "r.pdf").compare(0, 5, "%PDF-"), 0);
  ASSERT_EQ(system((browser + "--dump-dom" + page).c_str()), 0);
  std::string dom = ReadFile(folder_ / "out");
  for (const char *heading : {"Behaviour", "KL divergence of the tokens", "Sensitivity by block", "Hidden states",
                              "Memory", "Where the two differ most", "Weights against the original"})
    EXPECT_NE(dom.find(std::string("<h2>") + heading), std::string::npos) << heading;
}

TEST_F(CertificateTest, ModelCardIsATable) {
  Copy("nf4");
  CommandResult r = Nibble(Args("--no-certificate --model-card"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out.compare(0, 8, "| check "), 0) << r.out;
  EXPECT_NE(r.out.find("| verdict | sound (weights) |"), std::string::npos) << r.out;
}

TEST_F(CertificateTest, RefusesWrongUsage) {
  Copy("nf4");
  EXPECT_EQ(Nibble("verify " + artifact_ + " --text x").code, 2);
  EXPECT_EQ(Nibble(WithText("--profile lax")).code, 2);
  EXPECT_EQ(Nibble(Args("--check-only --report x.html")).code, 2);
}

}  // namespace
