// Outputs are whole or absent, and nothing is replaced, emptied or followed for its name alone.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/open_folder.h"
#include "tests/support.h"

extern "C" {
#include "base/mapfile.h"
#include "base/stage.h"
}

namespace {

const nb_replace kNo = {}, kForce = {true, nullptr, nullptr};

class Stage : public testing::Test {
 protected:
  // A whole run: the folder dst with one file in it. The status of its beginning, or of its end.
  nibble_status Make(const std::string &dst, const nb_replace &replace, const char *name = "a") {
    nibble_status status = nb_stage_begin(&stage_, dst.c_str(), &replace, &err_);
    if (status != NIBBLE_OK) return status;
    EXPECT_EQ(nb_folder_write(&stage_.folder, name, "new", 3, &err_), NIBBLE_OK) << err_.message;
    return nb_stage_commit(&stage_, false, &err_);
  }
  nibble_status MakeFile(const std::string &dst, const nb_replace &replace) {
    nibble_status status = nb_stage_begin_file(&stage_, dst.c_str(), &replace, &err_);
    if (status != NIBBLE_OK) return status;
    EXPECT_EQ(nb_pwrite_all(stage_.fd, stage_.path, "new", 3, 0, &err_), NIBBLE_OK) << err_.message;
    return nb_stage_commit(&stage_, true, &err_);
  }
  // Leaves what a killed run leaves.
  void BeginAndDie(const std::string &dst) {
    pid_t child = fork();
    if (child == 0) {
      nb_stage stage;
      bool ok = nb_stage_begin(&stage, dst.c_str(), &kNo, nullptr) == NIBBLE_OK &&
                nb_folder_write(&stage.folder, "stale", "x", 1, nullptr) == NIBBLE_OK;
      _exit(ok ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    ASSERT_EQ(status, 0);
  }
  void MakeModel(const std::string &path) {
    mkdir(path.c_str(), 0777);
    WriteFile(path + "/config.json", "{}");
    WriteFile(path + "/model.safetensors", "old");
  }
  static mode_t Mode(const std::string &path) {
    struct stat info = {};
    EXPECT_EQ(lstat(path.c_str(), &info), 0) << path;
    return info.st_mode & 07777;
  }
  TempFolder dir_;
  std::string dst_ = dir_ / "out";
  nb_stage stage_;
  nibble_error err_ = {};
};

TEST_F(Stage, AppearsWholeOrNotAtAll) {
  ASSERT_EQ(nb_stage_begin(&stage_, (dst_ + "/").c_str(), &kNo, &err_), NIBBLE_OK) << err_.message;
  ASSERT_EQ(nb_folder_write(&stage_.folder, "a", "one", 3, &err_), NIBBLE_OK);
  EXPECT_FALSE(Exists(dst_));
  EXPECT_EQ(Mode(dst_ + ".partial"), 0700u);
  nb_stage second;
  EXPECT_EQ(nb_stage_begin(&second, dst_.c_str(), &kNo, &err_), NIBBLE_SYSTEM); /* locked */
  ASSERT_EQ(nb_stage_commit(&stage_, true, &err_), NIBBLE_OK) << err_.message;
  EXPECT_EQ(ListFolder(dst_), std::vector<std::string>{"a"});
  EXPECT_FALSE(Exists(dst_ + ".partial"));
  EXPECT_EQ(Make(dst_, kNo), NIBBLE_USAGE);
}

TEST_F(Stage, AnAbortedOneLeavesNothing) {
  ASSERT_EQ(nb_stage_begin(&stage_, dst_.c_str(), &kNo, &err_), NIBBLE_OK) << err_.message;
  ASSERT_EQ(nb_folder_write(&stage_.folder, "a", "one", 3, &err_), NIBBLE_OK);
  nb_stage_abort(&stage_, NIBBLE_OK, &err_);
  EXPECT_TRUE(ListFolder(dir_.path()).empty());
  nb_stage_abort(&stage_, NIBBLE_OK, &err_); /* harmless */
}

TEST_F(Stage, AFolderThatIsMissingEndsItAtOnce) {
  std::string dst = dir_ / "none/out";
  EXPECT_EQ(nb_stage_begin(&stage_, dst.c_str(), &kNo, &err_), NIBBLE_SYSTEM);
  EXPECT_EQ(nb_stage_begin_file(&stage_, dst.c_str(), &kForce, &err_), NIBBLE_SYSTEM);
  EXPECT_NE(std::string(err_.message).find(dst + ".partial: No such file"), std::string::npos) << err_.message;
}

TEST_F(Stage, NamesThatAreNoNamesAreRefused) {
  for (const std::string &name : {std::string(""), std::string("/"), dir_ / ".", dir_ / "..", std::string(".")})
    EXPECT_EQ(nb_stage_begin(&stage_, name.c_str(), &kForce, &err_), NIBBLE_USAGE) << name;
}

TEST_F(Stage, RemovesWhatAKilledRunLeft) {
  BeginAndDie(dst_);
  ASSERT_TRUE(Exists(dst_ + ".partial/output/stale"));
  ASSERT_EQ(Make(dst_, kNo), NIBBLE_OK) << err_.message;
  EXPECT_EQ(ListFolder(dst_), std::vector<std::string>{"a"});
  EXPECT_EQ(ListFolder(dir_.path()), std::vector<std::string>{"out"});
  BeginAndDie(dir_ / "file");
  ASSERT_EQ(MakeFile(dir_ / "file", kNo), NIBBLE_OK) << err_.message;
  EXPECT_EQ(ReadFile(dir_ / "file"), "new");
  mkdir((dir_ / "early.partial").c_str(), 0700); /* killed before the marker was there */
  EXPECT_EQ(Make(dir_ / "early", kNo), NIBBLE_OK) << err_.message;
}

TEST_F(Stage, ForceReplacesAModelAndNothingElse) {
  MakeModel(dst_);
  EXPECT_EQ(Make(dst_, kNo), NIBBLE_USAGE);
  EXPECT_EQ(ReadFile(dst_ + "/model.safetensors"), "old");
  ASSERT_EQ(Make(dst_, kForce), NIBBLE_OK) << err_.message;
  EXPECT_EQ(ListFolder(dst_), std::vector<std::string>{"a"});

  std::string home = dir_ / "home";
  mkdir(home.c_str(), 0777);
  WriteFile(home + "/thesis.tex", "years");
  EXPECT_EQ(Make(home, kForce), NIBBLE_USAGE);
  EXPECT_NE(std::string(err_.message).find("holds no model"), std::string::npos) << err_.message;
  WriteFile(home + "/config.json", "{}"); /* a configuration is no model yet */
  EXPECT_EQ(Make(home, kForce), NIBBLE_USAGE);
  EXPECT_EQ(ReadFile(home + "/thesis.tex"), "years");
  WriteFile(dir_ / "file", "text");
  EXPECT_EQ(Make(dir_ / "file", kForce), NIBBLE_USAGE);
  EXPECT_EQ(MakeFile(home, kForce), NIBBLE_USAGE);
  symlink(home.c_str(), (dir_ / "link").c_str());
  symlink((dir_ / "file").c_str(), (dir_ / "file-link").c_str());
  mkfifo((dir_ / "fifo").c_str(), 0600);
  if (geteuid() == 0) mknod((dir_ / "null").c_str(), S_IFCHR | 0600, makedev(1, 3));
  for (const char *name : {"link", "file-link", "fifo", "null"}) {
    EXPECT_EQ(Make(dir_ / name, kForce), Exists(dir_ / name) ? NIBBLE_USAGE : NIBBLE_OK) << name;
    EXPECT_EQ(MakeFile(dir_ / name, kForce), NIBBLE_USAGE) << name;
  }
  EXPECT_EQ(ReadFile(home + "/thesis.tex") + ReadFile(dir_ / "file"), "yearstext");
  for (const std::string &name : ListFolder(dir_.path())) EXPECT_EQ(name.find(".partial"), std::string::npos) << name;
}

TEST_F(Stage, AnEmptyFolderNeedsNoForceAndKeepsItsMode) {
  mkdir(dst_.c_str(), 0700);
  ASSERT_EQ(Make(dst_, kNo), NIBBLE_OK) << err_.message;
  EXPECT_EQ(Mode(dst_), 0700u);
  EXPECT_TRUE(Exists(dst_ + "/a"));
}

TEST_F(Stage, AFolderThatFillsMeanwhileIsKept) {
  mkdir(dst_.c_str(), 0777);
  ASSERT_EQ(nb_stage_begin(&stage_, dst_.c_str(), &kNo, &err_), NIBBLE_OK) << err_.message;
  WriteFile(dst_ + "/mine", "text");
  EXPECT_EQ(nb_stage_commit(&stage_, false, &err_), NIBBLE_USAGE);
  EXPECT_EQ(ReadFile(dst_ + "/mine"), "text");
  EXPECT_FALSE(Exists(dst_ + ".partial"));
}

TEST_F(Stage, TheModeOfWhatIsReplacedIsKept) {
  MakeModel(dst_);
  chmod(dst_.c_str(), 02750);
  ASSERT_EQ(Make(dst_, kForce), NIBBLE_OK) << err_.message;
  EXPECT_EQ(Mode(dst_), 02750u);
  WriteFile(dir_ / "file", "old");
  chmod((dir_ / "file").c_str(), 0600);
  ASSERT_EQ(MakeFile(dir_ / "file", kForce), NIBBLE_OK) << err_.message;
  EXPECT_EQ(Mode(dir_ / "file"), 0600u);
  EXPECT_EQ(ReadFile(dir_ / "file"), "new");
}

TEST_F(Stage, AFileOfOursNeedsNoForce) {
  const nb_replace ours = {false, [](const char *text) { return std::string(text).rfind("ours", 0) == 0; }, nullptr};
  WriteFile(dst_, "notes");
  EXPECT_EQ(MakeFile(dst_, ours), NIBBLE_USAGE);
  EXPECT_EQ(nb_stage_check_file(dst_.c_str(), &ours, &err_), NIBBLE_USAGE);
  EXPECT_EQ(ReadFile(dst_), "notes");
  WriteFile(dst_, "ours, from before");
  EXPECT_EQ(nb_stage_check_file(dst_.c_str(), &ours, &err_), NIBBLE_OK);
  EXPECT_EQ(MakeFile(dst_, kNo), NIBBLE_USAGE);
  EXPECT_EQ(MakeFile(dst_, ours), NIBBLE_OK) << err_.message;
  EXPECT_EQ(ReadFile(dst_), "new");
}

TEST_F(Stage, WhatIsInTheWayIsNeitherEmptiedNorFollowed) {
  const std::string partial = dst_ + ".partial", victim = dir_ / "victim";
  mkdir(victim.c_str(), 0700);
  WriteFile(victim + "/file", "mine");
  const std::vector<std::string> plans = {"ln -s victim out.partial",
                                          "ln -s victim/file out.partial",
                                          "ln -s nowhere out.partial",
                                          "ln victim/file out.partial",
                                          "mkdir -p out.partial/mine; touch out.partial/mine/file",
                                          "mkfifo out.partial",
                                          "mkdir -p out.partial; touch out.partial/.nibble-stage out.partial/letter",
                                          "mkdir -m 0777 out.partial; touch out.partial/.nibble-stage"};
  for (const std::string &plan : plans) {
    ASSERT_EQ(system(("cd " + dir_.path() + " && rm -rf out.partial && " + plan).c_str()), 0);
    EXPECT_EQ(Make(dst_, kForce), NIBBLE_USAGE) << plan;
    EXPECT_NE(std::string(err_.message).find("in the way"), std::string::npos) << plan << err_.message;
    EXPECT_EQ(MakeFile(dst_, kForce), NIBBLE_USAGE) << plan;
    EXPECT_TRUE(Exists(partial)) << plan;
    EXPECT_EQ(ReadFile(victim + "/file"), "mine") << plan;
    EXPECT_EQ(ListFolder(victim), std::vector<std::string>{"file"}) << plan;
  }
  if (geteuid() != 0) GTEST_SKIP() << "skipped: another user's folder can only be made by root";
  ASSERT_EQ(system(("cd " + dir_.path() + " && rm -rf out.partial && mkdir -m 0700 out.partial").c_str()), 0);
  ASSERT_EQ(chown(partial.c_str(), 65534, 65534), 0);
  EXPECT_EQ(Make(dst_, kForce), NIBBLE_USAGE);
  EXPECT_NE(std::string(err_.message).find("another user"), std::string::npos) << err_.message;
}

TEST_F(Stage, AnOlderOutputThatCannotBeRemovedIsSaidAndIsNotInTheWay) {
  MakeModel(dst_);
  std::string deep = dst_;
  for (int i = 0; i < 80; i++) mkdir((deep += "/d").c_str(), 0777);
  std::string said;
  nibble_progress progress = {};
  progress.ctx = &said;
  progress.warning = [](void *ctx, const char *message) { *(std::string *)ctx += message; };
  const nb_replace replace = {true, nullptr, &progress};
  for (const char *name : {"first.safetensors", "second.safetensors"}) {
    ASSERT_EQ(Make(dst_, replace, name), NIBBLE_OK) << err_.message;
    EXPECT_EQ(ListFolder(dst_), std::vector<std::string>{name});
    WriteFile(dst_ + "/config.json", "{}");
  }
  EXPECT_NE(said.find("out.older"), std::string::npos) << said;
  EXPECT_EQ(ListFolder(dir_.path()), (std::vector<std::string>{"out", "out.older"}));
}

TEST_F(Stage, SparesItsInputsByWhateverName) {
  MakeModel(dst_);
  symlink(dst_.c_str(), (dir_ / "alias").c_str());
  const std::string file = dst_ + "/model.safetensors";
  auto spare = [&](const std::string &to, const std::string &input) {
    return nb_stage_spare(to.c_str(), input.c_str(), &err_);
  };
  for (const std::string &to : {dst_, dst_ + "/", dir_.path(), dir_ / "alias", file}) {
    EXPECT_EQ(spare(to, file), NIBBLE_USAGE) << to;
    EXPECT_EQ(spare(to, dir_ / "alias/model.safetensors"), NIBBLE_USAGE) << to;
  }
  EXPECT_EQ(spare(dir_ / "alias", dst_), NIBBLE_USAGE);
  EXPECT_EQ(spare(dst_ + "/config.json", file), NIBBLE_OK);
  EXPECT_EQ(spare(dir_ / "new", dst_), NIBBLE_OK);
}

// A FIFO without a writer would be waited for without end, a socket cannot be opened at all.
TEST(Reading, AFifoIsRefusedAtOnce) {
  TempFolder dir;
  const std::string fifo = dir / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  char *text;
  nb_mapfile map;
  nibble_error err;
  alarm(20);
  EXPECT_EQ(nb_read_file(fifo.c_str(), 1000, &text, nullptr, &err), NIBBLE_BAD_INPUT);
  EXPECT_NE(std::string(err.message).find("not a regular file"), std::string::npos) << err.message;
  EXPECT_EQ(nb_mapfile_open(fifo.c_str(), &map, &err), NIBBLE_BAD_INPUT);
  EXPECT_NE(std::string(err.message).find("not a regular file"), std::string::npos) << err.message;
  alarm(0);
}

TEST(Folder, ANewFileIsNeverWrittenThroughALink) {
  TempFolder dir;
  WriteFile(dir / "victim", "mine");
  symlink("victim", (dir / "link").c_str());
  link((dir / "victim").c_str(), (dir / "hard").c_str());
  OpenFolder folder(dir.path());
  nibble_error err;
  int fd;
  for (const char *name : {"link", "hard"}) {
    EXPECT_EQ(nb_folder_create(folder.get(), name, &fd, &err), NIBBLE_SYSTEM) << name;
    EXPECT_EQ(nb_folder_write(folder.get(), name, "new", 3, &err), NIBBLE_OK) << err.message;
    EXPECT_EQ(ReadFile(dir / name), "new");
    EXPECT_EQ(ReadFile(dir / "victim"), "mine");
  }
}

}  // namespace
