/* A folder held open, as the library wants those that it writes to. */
#ifndef NB_TESTS_OPEN_FOLDER_H
#define NB_TESTS_OPEN_FOLDER_H

#include <fcntl.h>
#include <unistd.h>

#include <string>

extern "C" {
#include "base/folder.h"
}

class OpenFolder {
 public:
  explicit OpenFolder(const std::string &path)
      : path_(path), folder_{open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), path_.c_str()} {}
  ~OpenFolder() { close(folder_.fd); }
  OpenFolder(const OpenFolder &) = delete;
  const nb_folder *get() const { return &folder_; }

 private:
  std::string path_;
  nb_folder folder_;
};

#endif
