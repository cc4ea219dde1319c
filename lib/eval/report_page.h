// The page of the report as it lies in report_page.html: {{title}} and {{body}} stand for what differs.
#pragma once
#include <string_view>

namespace moe {

extern const std::string_view kReportPage;

}  // namespace moe
